"""The Hub's rules for what a commit may bring. They judge commits, not what a script put into git.

Texts as they were seen in reports of real refusals, because clients tell the cases apart by them.
"""

import posixpath
import unicodedata

import attributes
import paths
from errors import ApiError
from gitrepo import DIRECTORY

DOCS = "See also: https://hf.co/docs/hub/repositories-getting-started#terminal"


def check_request(request, config):
    """Before the body is read: its size."""
    if int(request.headers.get("content-length") or 0) > config.max_commit_bytes:
        raise ApiError(413, f"Payload too large: a commit may have {config.max_commit_bytes} bytes")


def check_lines(config, lfs_files):
    if lfs_files > config.max_commit_lfs_files:
        raise ApiError(
            413,
            f"Too many LFS files in one commit: {lfs_files} is over the limit of "
            f"{config.max_commit_lfs_files}",
        )


def check_path(config, path):
    """The path of a file that is added."""
    if config.cache_folder == "refuse" and ".cache" in path.split("/")[:-1]:
        raise ApiError(422, f"Invalid request: invalid path {path!r}")


def check_result(repo, config, ref, before, after, added):
    """What the commit would make: `before` and `after` are trees, `added` the paths of its files."""
    entries = {path: repo.git.entry(after, path) for path in added}
    present = {path: repo.git.entry(before, path) for path in added}
    changed = [
        path
        for path, entry in entries.items()
        if entry and entry.mode != DIRECTORY and entry != present[path]
    ]
    _check_sizes(repo, config, ref, entries, changed)
    _check_folders(repo, config, ref, before, after, changed)
    _check_ignored(repo, config, before, changed)


def _check_sizes(repo, config, ref, entries, changed):
    large = [path for path in changed if repo.git.blob(entries[path].oid).size > config.max_regular_size]
    if large:
        raise ApiError(
            400,
            f"Your push was rejected because it contains files larger than {_mib(config)}. Please use "
            f"https://git-lfs.github.com/ to store large files. {DOCS} Offending files: "
            + " ".join(f"- {path} (ref: {ref})" for path in large[:20]),
        )
    binary = [
        path
        for path in changed
        if repo.git.blob(entries[path].oid).size > config.lfs_binary_size
        and b"\0" in repo.git.content(entries[path].oid)
    ]
    if binary:
        raise ApiError(
            400,
            "Your push was rejected because it contains binary files. Please use "
            f"https://git-lfs.github.com/ to store binary files. {DOCS} Offending files: "
            + " ".join(f"- {path} (ref: {ref})" for path in binary[:20]),
        )


def _mib(config):
    return f"{config.max_regular_size / (1 << 20):g} MiB"


def _check_folders(repo, config, ref, before, after, changed):
    offending = []
    for folder in {posixpath.dirname(path) for path in changed}:
        count = len(repo.git.tree(repo.git.entry(after, folder).oid))
        old = repo.git.entry(before, folder)
        if count > config.max_folder_entries and (
            old is None or old.mode != DIRECTORY or count > len(repo.git.tree(old.oid))
        ):
            offending.append(f"/{folder}/" if folder else "/")
    if offending:
        raise ApiError(
            400,
            "Your push was rejected because it contains too many files per directory. Each directory in "
            f"your git repo can only contain up to {config.max_folder_entries} files. Offending reference: "
            f"{ref} Offending directories: {' '.join(sorted(offending)[:20])}",
        )


def _check_ignored(repo, config, before, changed):
    if config.ignored_files == "accept":
        return
    rules = repo.reader(before)(".gitignore") or ""
    ignored = [path for path in changed if attributes.is_ignored(path, rules)]
    if ignored:
        raise ApiError(400, f"Files that .gitignore ignores: {' '.join(ignored[:20])}")


def checked_path(config, path):
    """A path as the Hub keeps it, if it takes it."""
    problem = paths.problem(path)
    if problem:
        raise ApiError(422, f"Invalid request: {problem}")
    return unicodedata.normalize("NFC", path) if config.unicode_names == "nfc" else path
