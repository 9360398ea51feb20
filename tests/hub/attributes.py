"""Patterns of .gitattributes and .gitignore: which path is stored as LFS, which is ignored.

Follows git's rules for both files: a pattern without a slash is matched against the last component at
any depth, one with a slash against the path from the file's own folder; `*`, `?` and `[…]` stop at
slashes, `**` does not; the last line that matches decides.
"""

import functools
import re

CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "blank": " \\t", "digit": "0-9", "lower": "a-z",
    "space": "\\s", "upper": "A-Z", "xdigit": "0-9A-Fa-f", "punct": "!-/:-@\\[-`{-~",
}
LFS_LINE = "filter=lfs diff=lfs merge=lfs -text"
COMMON = """*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack
*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/*
*.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*""".split()
DATASET = """*.lz4 *.mds *.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg
*.jpeg *.webp *.mp4 *.webm""".split()


def default_attributes(repo_type):
    """The .gitattributes of a new repository, as the Hub writes it."""
    patterns = COMMON + (DATASET if repo_type == "dataset" else [])
    return "".join(f"{pattern} {LFS_LINE}\n" for pattern in patterns)


def tracking_line(path):
    """The line that makes exactly this path LFS, with what git would read as a pattern escaped."""
    escaped = re.sub(r"[*?\[\\]", r"\\\g<0>", path)
    escaped = re.sub(r"\s", "[[:space:]]", escaped)
    if escaped[0] in '#!"':
        escaped = "\\" + escaped
    return f"{escaped} {LFS_LINE}\n"


@functools.lru_cache(maxsize=4096)
def compile_pattern(pattern):
    """A regular expression for one pattern, to be matched against a path from the file's folder."""
    anchored = "/" in pattern.rstrip("/")
    pattern = pattern.strip("/") if anchored else pattern.rstrip("/")
    return re.compile(("" if anchored else "(?:.*/)?") + _translate(pattern) + r"\Z", re.DOTALL)


def _translate(pattern):
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        starts = at == 0 or pattern[at - 1] == "/"
        if pattern.startswith("**/", at) and starts:
            out, at = out + "(?:.*/)?", at + 3
        elif pattern[at:] == "**" and starts:
            out, at = out + ".*", at + 2
        elif char == "*":
            out, at = out + "[^/]*", at + 1
        elif char == "?":
            out, at = out + "[^/]", at + 1
        elif char == "[":
            text, at = _bracket(pattern, at)
            out += text
        else:
            if char == "\\" and at + 1 < len(pattern):
                at += 1
            out, at = out + re.escape(pattern[at]), at + 1
    return out


def _bracket(pattern, at):
    """Translate the `[…]` that begins at `at`; a bracket that never ends is an ordinary character."""
    end = at + 1
    if pattern[end : end + 1] in ("!", "^"):
        end += 1
    if pattern[end : end + 1] == "]":
        end += 1
    while end < len(pattern) and pattern[end] != "]":
        end = pattern.index(":]", end) + 2 if pattern.startswith("[:", end) and ":]" in pattern[end:] else end + 1
    if end >= len(pattern):
        return re.escape("["), at + 1
    inside = pattern[at + 1 : end]
    negated = inside[0] in "!^"
    inside = re.sub(r"\[:(\w+):\]|([\\\[\]&~|^])",
                    lambda m: CLASSES.get(m[1], "") if m[1] else "\\" + m[2], inside[negated:])
    return f"(?!/)[{'^' if negated else ''}{inside}]", end + 1


def _lines(text):
    for line in text.splitlines():
        line = line.rstrip("\r")
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


@functools.lru_cache(maxsize=256)
def parse_attributes(text):
    """[(compiled pattern, {attribute: value})] of one .gitattributes file."""
    rules = []
    for line in _lines(text):
        quoted = re.match(r'\s*"((?:[^"\\]|\\.)*)"\s+(.*)', line)
        if quoted:
            pattern, rest = re.sub(r"\\(.)", r"\1", quoted[1]), quoted[2].split()
        else:
            pattern, *rest = line.split()
        if pattern.startswith("[attr]") or pattern.endswith("/"):
            continue
        values = {}
        for item in rest:
            name, _, value = item.lstrip("-!").partition("=")
            values[name] = "" if item[0] in "-!" else value or "set"
        rules.append((compile_pattern(pattern), values))
    return tuple(rules)


def filter_of(path, read):
    """The `filter` attribute of a path. `read(path)` gives the text of a .gitattributes file or None."""
    found = None
    parts = path.split("/")
    for depth in range(len(parts)):
        text = read("/".join([*parts[:depth], ".gitattributes"]))
        relative = "/".join(parts[depth:])
        for pattern, values in parse_attributes(text) if text else ():
            if "filter" in values and pattern.match(relative):
                found = values["filter"]
    return found


def is_lfs(path, read):
    return filter_of(path, read) == "lfs"


def is_ignored(path, text):
    """Whether the text of a root .gitignore ignores a path, or a folder above it."""
    parts = path.split("/")
    return any(_ignored_itself("/".join(parts[:depth]), depth < len(parts), text)
               for depth in range(1, len(parts) + 1))


def _ignored_itself(path, is_folder, text):
    ignored = False
    for line in _lines(text):
        pattern = line if line.endswith("\\ ") else line.rstrip(" ")
        negated = pattern.startswith("!")
        pattern = pattern[negated:]
        if pattern.endswith("/") and not is_folder:
            continue
        if compile_pattern(pattern).match(path):
            ignored = not negated
    return ignored
