"""What the tests of all examiners share: counted calls, files of a repository, comparing folders."""

import collections
import pathlib

CALLS = collections.Counter()  # how often each function or command of an examiner was called
VERSIONS = set()  # name/version of examiners that do not say it in their requests
PUBLIC = []  # every public function of the official client's API, called or not

FILES = {
    "README.md": b"# A model\n",
    "config.json": b"{}\n",
    "empty.txt": b"",
    "nested/deeper/a b#c?%25.txt": b"evil\n",
    "ünïcode/naïve.txt": "ü".encode(),
}


class Counted:
    """Stands before a client object and counts which of its functions are used, by name."""

    def __init__(self, thing, label):
        self._thing = thing
        self._label = label

    def __getattr__(self, name):
        value = getattr(self._thing, name)
        if callable(value):
            CALLS[f"{self._label}.{name}"] += 1
        return value


def public_functions(kind):
    """The names of a class's public functions."""
    return [name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))]


def read_tree(folder):
    """{path: content} of a folder; what git and the Hub put there is left out."""
    root = pathlib.Path(folder)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.parts and path.name != ".gitattributes"
    }
