"""What the Hub keeps under its root directory, and who may touch it.

    ROOT/repos/REPO_ID.git                                  bare repository; hub.json in it: Repo.meta
    ROOT/git/{models,datasets,spaces,kernels}/NAMESPACE/NAME.git    a symbolic link to it, for people
    ROOT/moved.json                                         where old names lead
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

import gitrepo
from errors import ApiError, repo_not_found, revision_not_found
from names import TYPES, Names

PLURALS = {singular: plural for plural, singular in TYPES.items()}
NAME = re.compile(r"[A-Za-z0-9._-]{1,96}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Account:
    """A user: their token's role (`read`, `write` or `fineGrained`), and the namespaces where they may
    read and, but for `read`, write."""

    def __init__(self, name, role, organizations):
        self.name = name
        self.role = role
        self.writer = role in ("write", "fineGrained")
        self.role_in_organizations = "write" if self.writer else "read"
        self.organizations = organizations
        self.id = hashlib.sha256(f"account {name}".encode()).hexdigest()[:24]
        self.token = "hf_" + hashlib.sha256(f"hugfs test hub {name}".encode()).hexdigest()[:34]

    def member(self, namespace):
        return namespace.lower() in (self.name, *self.organizations)

    def writes(self, namespace):
        return self.writer and self.member(namespace)


ACCOUNTS = [
    Account("user", "write", ["acme"]),
    Account("other", "write", ["acme"]),
    Account("reader", "read", ["acme"]),
    Account("scoped", "fineGrained", []),
]
ORGANIZATIONS = ["acme"]


def account_of_token(token):
    return next((account for account in ACCOUNTS if secrets.compare_digest(account.token, token)), None)


def valid_name(name):
    """Whether a namespace or repository name obeys the Hub's rules."""
    return bool(NAME.match(name)) and not (
        name[0] in "-." or name[-1] in "-." or "--" in name or ".." in name or name.endswith(".git"))


class RepoLock:
    """Held while a repository is changed. Whoever waited for a repository that was deleted meanwhile
    does not get it: ApiError 404."""

    def __init__(self):
        self.lock = threading.RLock()
        self.gone = False

    def __enter__(self):
        self.lock.acquire()
        if self.gone:
            self.lock.release()
            raise repo_not_found()

    def __exit__(self, *_):
        self.lock.release()


class Repo:
    """One repository: its git repository, LFS objects and settings. `lock` is held while a commit,
    a pull request or a setting is made."""

    def __init__(self, store, git, meta):
        self.store = store
        self.git = git
        self.meta = meta
        self.lock = RepoLock()
        self.committing = set()  # what commits under way have locked (commit_lock.py)
        self.unseen = {}  # new refs, and until when nobody sees them

    id = property(lambda self: self.meta["id"])
    type = property(lambda self: self.meta["type"])
    uid = property(lambda self: self.meta["_id"])
    namespace = property(lambda self: self.id.partition("/")[0])
    plural = property(lambda self: PLURALS[self.type])
    prefix = property(lambda self: "" if self.type == "model" else self.plural + "/")
    private = property(lambda self: self.meta["private"])
    protected = property(lambda self: self.meta.get("protected", False))
    gated = property(lambda self: self.meta["gated"])
    link = property(lambda self: os.path.join(self.store.root, "git", self.plural, self.id + ".git"))

    def save(self):
        path = os.path.join(self.git.path, "hub.json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.meta, file, indent=1)
        os.replace(path + ".new", path)

    @property
    def visibility(self):
        return "protected" if self.private and self.protected else "private" if self.private else "public"

    def updated(self):
        """When the main branch last changed."""
        head = self.resolve("main")
        return gitrepo.iso_date(head.time) if head else self.meta["createdAt"]

    def readable(self, account):
        return not self.private or (account is not None and account.member(self.namespace))

    def granted(self, account):
        """Whether an account may read the bytes of a gated repository."""
        return account is not None and (account.member(self.namespace) or account.name in self.meta["granted"]
                                        or self.request_status(account) == "accepted")

    def request_status(self, account):
        """What became of an account's request for a gated repository: None if it never asked."""
        return self.meta["requests"].get(account.name, {}).get("status")

    # Revisions

    def resolve(self, revision, short=False):
        """The commit of a revision: branch, tag, refs/pr/N, refs/convert/NAME or 40 hex (with `short`,
        7 or more); or None."""
        oid = next(filter(None, map(self.git.ref, filter(self.seen, self._ref_names(revision)))), None)
        if oid is None and (short or self.store.config.short_revisions == "accept"):
            oid = self.git.full_id(revision)
        if oid is None and gitrepo.SHA1.match(revision):
            oid = revision
        try:
            return self.git.commit(oid) if oid else None
        except KeyError:
            return None

    def commit(self, revision, short=False):
        """Like resolve(), but ApiError 404 for a revision that there is not."""
        commit = self.resolve(revision, short)
        if commit is None:
            raise revision_not_found(revision)
        return commit

    def hide_new(self, ref):
        """A ref was made: it takes a moment until it is seen."""
        if self.store.config.new_ref_delay_ms:
            self.unseen[ref] = time.monotonic() + self.store.config.new_ref_delay_ms / 1000

    def seen(self, ref):
        return time.monotonic() >= self.unseen.get(ref, 0)

    def _ref_names(self, revision):
        """The full names that a revision may stand for, the first wins. @huggingface/hub asks for `HEAD`."""
        if revision == "HEAD":
            return ["refs/heads/main"]
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

    def lfs_total(self):
        """The bytes of all LFS objects of the repository."""
        folder = os.path.join(self.store.root, "lfs", self.uid)
        return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names)

    def copy_lfs(self, target, oid):
        """Give another repository an LFS object of this one; False if this one does not have it."""
        path = target.lfs_path(oid)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.link(self.lfs_path(oid), path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return False
        return True

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
        self.late_copies = []
        for name in ("git", "lfs", "repos", "uploads", "tmp"):
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        self.names = Names(self.root)
        self._load()

    def _load(self):
        for folder, names, _ in os.walk(os.path.join(self.root, "git")):
            for name in names:
                if os.path.islink(os.path.join(folder, name)):
                    os.unlink(os.path.join(folder, name))
        for entry in os.scandir(os.path.join(self.root, "repos")):
            meta = os.path.join(entry.path, "hub.json")
            if os.path.exists(meta):
                with open(meta, encoding="utf-8") as file:
                    self._add(Repo(self, gitrepo.GitRepository(entry.path), json.load(file)))

    def _add(self, repo):
        os.makedirs(os.path.dirname(repo.link), exist_ok=True)
        os.symlink(os.path.relpath(repo.git.path, os.path.dirname(repo.link)), repo.link)
        self.repos[repo.type, repo.id.lower()] = repo

    def _remove(self, repo):
        del self.repos[repo.type, repo.id.lower()]
        os.unlink(repo.link)

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

    def create(self, repo_type, repo_id, fill, **settings):
        """Make a repository; `fill(repo)` gives it its branches before anybody sees it. ApiError 409 if
        it exists."""
        with self.lock:
            self._must_be_free(repo_type, repo_id)
            uid = secrets.token_hex(12)
            meta = {
                "id": repo_id, "type": repo_type, "_id": uid,
                "createdAt": gitrepo.iso_date(time.time()), "private": False, "gated": False,
                "disabled": False, "granted": [], "requests": {}, "discussions": [], **settings,
            }
            git = gitrepo.GitRepository.create(os.path.join(self.root, "repos", uid + ".git"))
            repo = Repo(self, git, meta)
            try:
                fill(repo)
            except BaseException:
                self._erase(repo)
                raise
            repo.save()
            self.names.take(repo_type, repo_id)
            self._add(repo)
            return repo

    def _must_be_free(self, repo_type, repo_id):
        if self.find(repo_type, repo_id):
            raise ApiError(409, f"You already created this {repo_type} repo")

    def delete(self, repo):
        with repo.lock, self.lock:
            repo.lock.gone = True
            self._remove(repo)
            self.names.forget(repo.type, repo.id)
        self._erase(repo)

    def _erase(self, repo):
        """Take a repository's files away; a commit that comes too late may put some back, which is no harm."""
        repo.git.close()
        shutil.rmtree(repo.git.path, ignore_errors=True)
        shutil.rmtree(os.path.join(self.root, "lfs", repo.uid), ignore_errors=True)

    def move(self, repo, repo_id):
        """Give a repository another id; its old one leads there. ApiError 409 if another one has the id."""
        with repo.lock, self.lock:
            if repo_id.lower() != repo.id.lower():
                self._must_be_free(repo.type, repo_id)
            old = repo.id
            self._remove(repo)
            repo.meta["id"] = repo_id
            repo.save()
            self._add(repo)
            if repo_id.lower() != old.lower():
                self.names.add(repo.type, old, repo_id)

    def used_storage(self, namespace, private):
        """Bytes of the LFS objects in all private (or all public) repositories of a namespace."""
        return sum(repo.lfs_total() for repo in list(self.repos.values())
                   if repo.namespace.lower() == namespace.lower() and repo.private == private)

    def temporary(self):
        """A new file for bytes that are arriving: (open file, path)."""
        descriptor, path = tempfile.mkstemp(dir=os.path.join(self.root, "tmp"))
        return open(descriptor, "wb"), path
