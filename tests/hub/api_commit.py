"""The commit endpoint: one ndjson body is one git commit.

The lines are read as they arrive (contents become git blobs at once, so that a large body is never in
memory) and then applied in order, under the repository's lock, to the tree of the head. The ref is
swapped by git only if it still is what the lock's holder saw. What a commit may bring is in
commit_rules.py, how many there may be at once in commit_lock.py.
"""

import base64
import binascii
import json
import re

import attributes
import commit_lock
import commit_rules
import frontmatter
from api_discussions import open_pull_request
from api_lfs import may_push, target_commit
from errors import ApiError, entry_not_found
from gitrepo import DIRECTORY, REGULAR, Entry, RefConflict, TreeEditor, pointer_text
from http_engine import json_response
from routes import route
from store import SHA256

MAX_LINE = 1 << 30
MISSING_LINE = "Add a line with the key `lfsFile`, `file` or `deletedFile`"
MISSING_FILE = "A file with this name doesn't exist"
LEGACY_LINES = {
    "files": "file",
    "lfsFiles": "lfsFile",
    "deletedFiles": "deletedFile",
    "deletedFolders": "deletedFolder",
    "deletedEntries": "deletedEntry",
}
MOVED = (
    "A commit has happened since. The branch was updated since you opened this page. "
    "Please refresh and try again."
)


@route("POST", "/api/{T}/{id}/commit/{rev}")
def commit(context, T, id, rev):
    create_pr = context.flag("create_pr")
    repo = context.repo(T, id, "propose" if create_pr else "metadata")
    if not create_pr:
        may_push(context, repo, rev)
    target_commit(context, repo, rev)
    context.quotas.action(context.account, "commit")
    header, operations = _read(context, repo)
    ref = f"refs/pr/{len(repo.meta['discussions']) + 1}" if create_pr else repo.writable_ref(rev)
    return commit_lock.answer(
        repo, context.config, ref, lambda work: _make(context, repo, rev, header, operations, work)
    )


def _make(context, repo, rev, header, operations, work):
    """Make the commit; the answer."""
    with repo.lock:
        head = target_commit(context, repo, rev)
        _check_parent(header, head)
        editor = TreeEditor(repo.git, head.tree)
        for operation in operations:
            operation.apply(editor)
        _track(repo, editor, operations)
        tree = editor.write()
        added = [operation.path for operation in operations if not isinstance(operation, Delete)]
        commit_rules.check_result(
            repo, context.config, repo.writable_ref(rev), head.tree, tree, [*added, ".gitattributes"]
        )
        oid = _same_content(context, head) if tree == head.tree else None
        if oid is None:
            oid = repo.git.write_commit(
                tree, [head.oid], context.account.name, header["summary"], header.get("description") or ""
            )
        work.check()
        answer = {
            "success": True,
            "commitOid": oid,
            "hookOutput": "",
            "commitUrl": f"{context.endpoint}/{repo.prefix}{repo.id}/commit/{oid}",
        }
        if context.flag("create_pr"):
            number = open_pull_request(
                repo, context.account, header["summary"], header.get("description") or "", rev, oid, "open"
            )
            answer["pullRequestUrl"] = f"{context.endpoint}/{repo.prefix}{repo.id}/discussions/{number}"
        elif oid != head.oid:
            try:
                repo.git.update_ref(repo.writable_ref(rev), oid, head.oid)
            except RefConflict:
                raise ApiError(412, MOVED) from None
    return json_response(answer)


def _same_content(context, head):
    """A commit that changes nothing: None if it is made all the same, the head if it is not."""
    if context.config.same_content == "refuse":
        raise ApiError(400, "No files have been modified since the last commit")
    return head.oid if context.config.same_content == "head" else None


def _check_parent(header, head):
    parent = header.get("parentCommit")
    if parent is None:
        return
    if not isinstance(parent, str) or not re.match(r"[0-9a-f]{5,40}\Z", parent):
        raise ApiError(400, "parentCommit must be a commit id")
    if not head.oid.startswith(parent):
        raise ApiError(412, MOVED)


# Reading the body


def _read(context, repo):
    """(header, operations) of the request's body."""
    commit_rules.check_request(context.request, context.config)
    if context.request.raw_body.chunked:
        raise ApiError(400, MISSING_LINE)
    legacy = "application/json" in context.request.headers.get("content-type", "")
    header, operations, lfs_files = None, [], 0
    for key, value in _legacy_lines(context.json()) if legacy else _lines(context.request.stream):
        if not isinstance(value, dict):
            raise ApiError(400, "The value of a line must be a JSON object")
        if header is None:
            if key != "header":
                raise ApiError(400, "The first line must be the header")
            header = value
        elif key in OPERATIONS:
            operations.append(OPERATIONS[key](repo, context.config, value))
            lfs_files += key == "lfsFile"
        else:
            raise ApiError(400, f"Unknown key {key}. {MISSING_LINE}")
    if header is None or not isinstance(header.get("summary"), str) or not header["summary"].strip():
        raise ApiError(400, "The header must have a summary that is not empty")
    if not operations:
        raise ApiError(400, MISSING_LINE)
    commit_rules.check_lines(context.config, lfs_files)
    return header, operations


def _lines(stream):
    """(key, value) of each line."""
    while line := stream.readline(MAX_LINE):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            yield item["key"], item["value"]
        except (ValueError, TypeError, KeyError):
            raise ApiError(400, "Every line must be a JSON object with key and value") from None


def _legacy_lines(body):
    """(key, value) as lines would have them, of the older body that is one JSON object."""
    yield "header", {name: value for name, value in body.items() if name not in LEGACY_LINES}
    for name, key in sorted(LEGACY_LINES.items(), key=lambda item: not item[0].startswith("deleted")):
        items = body.get(name) or []
        if not isinstance(items, list):
            raise ApiError(400, f'"{name}" must be an array')
        for value in items:
            yield key, value


class Operation:
    """One line of a commit: checked when it is read, applied later."""

    def __init__(self, repo, config, value):
        self.repo = repo
        self.config = config
        self.path = self._checked(value.get("path"))
        old = value.get("oldPath")
        if old is not None and config.old_path == "refuse":
            raise ApiError(400, '"oldPath" is not allowed')
        self.old_path = None if old is None else self._checked(old)

    def _checked(self, path):
        return commit_rules.checked_path(self.config, path)

    def put(self, editor, entry):
        """Put a file at the path, and take the old one away if this is a rename."""
        if self.old_path not in (None, self.path) and not editor.remove(self.old_path):
            raise entry_not_found(MISSING_FILE)
        try:
            editor.put(self.path, entry)
        except ValueError as error:
            raise ApiError(400, f"Invalid path: {error}") from None

    def old_entry(self, editor):
        entry = editor.entry(self.old_path) if self.old_path is not None else None
        if entry is None or entry.mode == DIRECTORY:
            raise entry_not_found(MISSING_FILE)
        return entry


class PutFile(Operation):
    """`file`: a regular file with its content, or a rename without."""

    def __init__(self, repo, config, value):
        super().__init__(repo, config, value)
        commit_rules.check_path(config, self.path)
        self.blob = None
        content = value.get("content")
        if content is None and self.old_path is not None:
            return
        if not isinstance(content, str):
            raise ApiError(400, f"The content of {self.path} is missing")
        self.blob = repo.git.write_blob(self._decoded(content, value.get("encoding", "utf-8")))

    def _decoded(self, content, encoding):
        if encoding == "utf-8":
            data = content.encode("utf-8", "surrogatepass")
        elif encoding == "base64":
            try:
                data = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError):
                raise ApiError(400, f"The content of {self.path} is not base64") from None
        else:
            raise ApiError(400, "encoding is utf-8 or base64")
        if self.path == "README.md":
            errors, _ = frontmatter.judge(data.decode("utf-8", "replace"), self.repo.type)
            if errors:
                raise ApiError(self.config.readme_status, "; ".join(errors))
        return data

    def apply(self, editor):
        entry = Entry(REGULAR, self.blob) if self.blob else self.old_entry(editor)
        self.put(editor, entry)


class PutLfsFile(Operation):
    """`lfsFile`: a pointer at an object that must be in the repository's LFS store."""

    def __init__(self, repo, config, value):
        super().__init__(repo, config, value)
        commit_rules.check_path(config, self.path)
        self.oid, self.size = value.get("oid"), value.get("size")
        if value.get("algo", "sha256") != "sha256":
            raise ApiError(400, "algo must be sha256")
        if self.oid is None and self.old_path is not None:
            return
        if not isinstance(self.oid, str) or not SHA256.match(self.oid):
            raise ApiError(400, f"The oid of {self.path} must be a sha256")
        stored = repo.lfs_size(self.oid)
        if stored is None:
            raise ApiError(
                400, f"LFS pointer pointed to a file that does not exist: {self.path} ({self.oid})"
            )
        if self.size is not None and self.size != stored:
            raise ApiError(
                400, f"LFS pointer of {self.path} gives size {self.size}, the file has {stored} bytes"
            )
        self.size = stored

    def apply(self, editor):
        if self.oid:
            self.put(editor, Entry(REGULAR, self.repo.git.write_blob(pointer_text(self.oid, self.size))))
        else:
            self.put(editor, self.old_entry(editor))


class Delete(Operation):
    """`deletedFile`, `deletedFolder`, `deletedEntry`: a file, or a folder with all that is in it."""

    def _checked(self, path):
        return super()._checked(path.rstrip("/") if isinstance(path, str) else path)

    def apply(self, editor):
        if not editor.remove(self.path):
            raise entry_not_found(MISSING_FILE)


class DeleteFolder(Delete):
    def apply(self, editor):
        entry = editor.entry(self.path)
        if entry is None or entry.mode != DIRECTORY:
            raise entry_not_found("A folder with this name doesn't exist")
        super().apply(editor)


OPERATIONS = {
    "file": PutFile,
    "lfsFile": PutLfsFile,
    "deletedFile": Delete,
    "deletedFolder": DeleteFolder,
    "deletedEntry": Delete,
}


def _track(repo, editor, operations):
    """Append a line to .gitattributes for every LFS file that no rule covers yet, as the Hub does."""

    def read(path):
        entry = editor.entry(path)
        if entry is None or entry.mode == DIRECTORY:
            return None
        return repo.git.content(entry.oid).decode("utf-8", "replace")

    added = []
    for operation in operations:
        path = operation.path
        if not isinstance(operation, PutLfsFile) or editor.entry(path) is None or path in added:
            continue
        if not attributes.is_lfs(path, read):
            added.append(path)
    if added:
        text = read(".gitattributes") or ""
        text += "" if text.endswith("\n") or not text else "\n"
        text += "".join(attributes.tracking_line(path) for path in added)
        editor.put(
            ".gitattributes", Entry(REGULAR, repo.git.write_blob(text.encode("utf-8", "surrogateescape")))
        )
