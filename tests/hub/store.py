"""What the Hub keeps under its root directory, and who may touch it.

    ROOT/git/{models,datasets,spaces}/NAMESPACE/NAME.git    bare repository; hub.json in it: Repo.meta
    ROOT/lfs/REPO_ID/aa/bb/SHA256                           LFS objects, per repository
    ROOT/uploads/UPLOAD_ID/{upload.json,data,PART.json}     multipart uploads that are under way
    ROOT/tmp/                                               bytes that are arriving
    ROOT/secret                                             key of the signatures in URLs

All of it survives a restart. Tokens are derived from the account's name and always the same.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time

import attributes
import gitrepo
from errors import ApiError

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
PLURALS = {singular: plural for plural, singular in TYPES.items()}
NAME = re.compile(r"[A-Za-z0-9._-]{1,96}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Account:
    """A user: their token's role, and the namespaces where they may write and read."""

    def __init__(self, name, role, organizations):
        self.name = name
        self.role = role
        self.organizations = organizations
        self.id = hashlib.sha256(f"account {name}".encode()).hexdigest()[:24]
        self.token = "hf_" + hashlib.sha256(f"hugfs test hub {name}".encode()).hexdigest()[:34]

    def member(self, namespace):
        return namespace.lower() in (self.name, *self.organizations)

    def writes(self, namespace):
        return self.role == "write" and self.member(namespace)


ACCOUNTS = [
    Account("user", "write", ["acme"]),
    Account("other", "write", ["acme"]),
    Account("reader", "read", ["acme"]),
]
ORGANIZATIONS = ["acme"]


def account_of_token(token):
    return next((account for account in ACCOUNTS if secrets.compare_digest(account.token, token)), None)


def valid_name(name):
    """Whether a namespace or repository name obeys the Hub's rules."""
    return bool(NAME.match(name)) and not (
        name[0] in "-." or name[-1] in "-." or "--" in name or ".." in name or name.endswith(".git"))


class Repo:
    """One repository: its git repository, LFS objects and settings. `lock` is held while a commit,
    a pull request or a setting is made."""

    def __init__(self, store, git, meta):
        self.store = store
        self.git = git
        self.meta = meta
        self.lock = threading.RLock()

    id = property(lambda self: self.meta["id"])
    type = property(lambda self: self.meta["type"])
    uid = property(lambda self: self.meta["_id"])
    namespace = property(lambda self: self.id.partition("/")[0])
    plural = property(lambda self: PLURALS[self.type])
    prefix = property(lambda self: "" if self.type == "model" else self.plural + "/")
    private = property(lambda self: self.meta["private"])
    gated = property(lambda self: self.meta["gated"])

    def save(self):
        path = os.path.join(self.git.path, "hub.json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.meta, file, indent=1)
        os.replace(path + ".new", path)

    def readable(self, account):
        return not self.private or (account is not None and account.member(self.namespace))

    def granted(self, account):
        """Whether an account may read the bytes of a gated repository."""
        return account is not None and (account.member(self.namespace) or account.name in self.meta["granted"])

    # Revisions

    def resolve(self, revision, short=False):
        """The commit of a revision: branch, tag, refs/pr/N, refs/convert/NAME or 40 hex (with `short`,
        7 or more); or None."""
        oid = next(filter(None, map(self.git.ref, self._ref_names(revision))), None)
        if oid is None and (short or self.store.config.short_revisions == "accept"):
            oid = self.git.full_id(revision)
        if oid is None and gitrepo.SHA1.match(revision):
            oid = revision
        try:
            return self.git.commit(oid) if oid else None
        except KeyError:
            return None

    def _ref_names(self, revision):
        """The full names that a revision may stand for, the first wins."""
        if gitrepo.SHA1.match(revision):
            return []
        if revision.startswith(("refs/pr/", "refs/convert/")):
            return [revision]
        names = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        if self.store.config.same_name == "tag":
            names.reverse()
        full = revision.startswith(("refs/heads/", "refs/tags/"))
        return [revision] if full and self.store.config.full_ref_names == "accept" else names

    def writable_ref(self, revision):
        """The full name of the branch or pull request that a revision names, None if it is neither."""
        name = revision if revision.startswith("refs/pr/") else f"refs/heads/{revision}"
        return name if self.git.ref(name) else None

    def reader(self, tree):
        """A function that gives the text at a path of a tree, or None; for attributes.is_lfs."""
        def read(path):
            entry = self.git.entry(tree, path)
            if entry is None or entry.mode == gitrepo.DIRECTORY:
                return None
            return self.git.content(entry.oid).decode("utf-8", "replace")
        return read

    def commit_files(self, branch, files, title):
        """Commit {path: bytes} to a branch as its namespace's owner; the commit's id."""
        with self.lock:
            ref = self.writable_ref(branch)
            head = self.git.commit(self.git.ref(ref))
            editor = gitrepo.TreeEditor(self.git, head.tree)
            for path, data in files.items():
                editor.put(path, gitrepo.Entry(gitrepo.REGULAR, self.git.write_blob(data)))
            commit = self.git.write_commit(editor.write(), [head.oid], self.namespace, title, "")
            self.git.update_ref(ref, commit, head.oid)
        return commit

    # LFS objects

    def lfs_path(self, oid):
        return os.path.join(self.store.root, "lfs", self.uid, oid[:2], oid[2:4], oid)

    def lfs_size(self, oid):
        """The size of a stored LFS object, None if it is not there."""
        try:
            return os.stat(self.lfs_path(oid)).st_size
        except FileNotFoundError:
            return None

    def adopt_lfs(self, oid, temporary):
        """Move a complete, verified file into its place."""
        os.makedirs(os.path.dirname(self.lfs_path(oid)), exist_ok=True)
        os.replace(temporary, self.lfs_path(oid))


class Store:
    """All repositories of a Hub."""

    def __init__(self, root, config):
        self.root = os.path.abspath(root)
        self.config = config
        self.lock = threading.Lock()
        self.repos = {}
        for name in ("git", "lfs", "uploads", "tmp"):
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        self._load()

    def _load(self):
        for plural in TYPES:
            for folder, names, files in os.walk(os.path.join(self.root, "git", plural)):
                if "hub.json" in files:
                    names.clear()
                    with open(os.path.join(folder, "hub.json"), encoding="utf-8") as file:
                        self._add(Repo(self, gitrepo.GitRepository(folder), json.load(file)))

    def _add(self, repo):
        self.repos[repo.type, repo.id.lower()] = repo

    def secret(self):
        path = os.path.join(self.root, "secret")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(secrets.token_bytes(32))
        with open(path, "rb") as file:
            return file.read()

    def find(self, repo_type, repo_id):
        return self.repos.get((repo_type, repo_id.lower()))

    def by_uid(self, uid):
        return next((repo for repo in list(self.repos.values()) if repo.uid == uid), None)

    def create(self, repo_type, repo_id, author, **settings):
        """Make a repository with its initial commit; ApiError 409 if it exists."""
        with self.lock:
            if self.find(repo_type, repo_id):
                raise ApiError(409, f"You already created this {repo_type} repo")
            path = os.path.join(self.root, "git", PLURALS[repo_type], repo_id + ".git")
            meta = {
                "id": repo_id, "type": repo_type, "_id": secrets.token_hex(12),
                "createdAt": gitrepo.iso_date(time.time()), "private": False, "gated": False,
                "disabled": False, "granted": [], "discussions": [], **settings,
            }
            git = gitrepo.GitRepository.create(path)
            blob = git.write_blob(attributes.default_attributes(repo_type).encode())
            tree = git.write_tree({".gitattributes": gitrepo.Entry(gitrepo.REGULAR, blob)})
            git.update_ref("refs/heads/main", git.write_commit(tree, [], author, "initial commit", ""))
            repo = Repo(self, git, meta)
            repo.save()
            self._add(repo)
            return repo

    def delete(self, repo):
        with self.lock:
            del self.repos[repo.type, repo.id.lower()]
        repo.git.close()
        shutil.rmtree(repo.git.path)
        shutil.rmtree(os.path.join(self.root, "lfs", repo.uid), ignore_errors=True)

    def temporary(self):
        """A new file for bytes that are arriving: (open file, path)."""
        descriptor, path = tempfile.mkstemp(dir=os.path.join(self.root, "tmp"))
        return open(descriptor, "wb"), path
