"""Which paths a commit may name."""


def problem(path):
    """Why a path is refused, or None."""
    if not isinstance(path, str) or not path:
        return "a path must not be empty"
    if "\\" in path or "\0" in path:
        return f"invalid character in path {path!r}"
    if any("\ud800" <= letter <= "\udfff" for letter in path):
        return f"half a character in path {path!r}"
    if len(path) > 1000:
        return "a path must not be longer than 1000 characters"
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        return f"invalid path {path!r}"
    return None
