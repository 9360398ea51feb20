"""A bare git repository: objects, refs, trees and commits.

Loose objects are read and written here directly, which is many times faster than a process per object;
the result is what git itself would have written. Packed objects, which only git makes (a gc by hand),
are read through one long-lived `git cat-file --batch`. Refs are read here and changed by
`git update-ref`, which compares and swaps and holds git's own locks, so that `git push` and the API
cannot lose each other's commits.
"""

import collections
import hashlib
import heapq
import os
import re
import subprocess
import tempfile
import threading
import time
import zlib
from datetime import datetime, timezone

Entry = collections.namedtuple("Entry", "mode oid")
Commit = collections.namedtuple("Commit", "oid tree parents author time title message")
Pointer = collections.namedtuple("Pointer", "oid size")
Blob = collections.namedtuple("Blob", "size lfs")

DIRECTORY = "40000"
REGULAR = "100644"
SUBMODULE = "160000"
SYMLINK = "120000"
SHA1 = re.compile(r"[0-9a-f]{40}\Z")
SHORT_SHA1 = re.compile(r"[0-9a-f]{7,39}\Z")
POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n\Z"
)
POINTER_MAX = 200
REMEMBERED_ENTRIES = 1_000_000
LISTED_ENTRIES = 3_000_000
CONFIG = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[gc]
\tauto = 0
[transfer]
\tunpackLimit = 1000000
[uploadpack]
\tallowAnySHA1InWant = true
"""


class RefConflict(Exception):
    """A ref was not what the caller expected, or cannot exist beside another one."""


class GitError(Exception):
    """A git command failed: its exit status, output and complaint."""

    def __init__(self, status, output, complaint):
        super().__init__(complaint)
        self.status = status
        self.output = output


def git_environment():
    """The environment for git programs: nothing of the user's configuration."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {**env, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}


def _message(text):
    """A message as git can hold it: no NUL, and of half a character a question mark."""
    return text.replace("\0", "").encode("utf-8", "replace")


def _is_text(name):
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def pointer_text(oid, size):
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def iso_date(seconds):
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def object_id(kind, data):
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()


class Objects:
    """The object database of one repository."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        self.packed = None

    def _file(self, oid):
        return os.path.join(self.path, "objects", oid[:2], oid[2:])

    def read(self, oid):
        """(kind, content) of an object; KeyError if it does not exist."""
        try:
            with open(self._file(oid), "rb") as file:
                raw = zlib.decompress(file.read())
        except FileNotFoundError:
            return self._read_packed(oid)
        head, _, data = raw.partition(b"\0")
        return head.split()[0].decode(), data

    def start(self, oid):
        """(kind, size, first bytes) of an object without unpacking all of it."""
        try:
            with open(self._file(oid), "rb") as file:
                raw = zlib.decompressobj().decompress(file.read(4096), POINTER_MAX + 64)
        except FileNotFoundError:
            kind, data = self._read_packed(oid)
            return kind, len(data), data
        head, _, data = raw.partition(b"\0")
        kind, size = head.split()
        return kind.decode(), int(size), data

    def _read_packed(self, oid):
        if not any(name.endswith(".pack") for name in os.listdir(os.path.join(self.path, "objects/pack"))):
            raise KeyError(oid)
        with self.lock:
            if self.packed is None:
                self.packed = subprocess.Popen(
                    ["git", "-C", self.path, "cat-file", "--batch"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=git_environment())
            self.packed.stdin.write(oid.encode() + b"\n")
            self.packed.stdin.flush()
            head = self.packed.stdout.readline().split()
            if len(head) != 3:
                raise KeyError(oid)
            data = self.packed.stdout.read(int(head[2]))
            self.packed.stdout.read(1)
            return head[1].decode(), data

    def write(self, kind, data):
        oid = object_id(kind, data)
        path = self._file(oid)
        if os.path.exists(path):
            return oid
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix="tmp_obj_", dir=os.path.dirname(path))
        with open(descriptor, "wb") as file:
            file.write(zlib.compress(b"%s %d\0" % (kind.encode(), len(data)) + data, 1))
        os.chmod(temporary, 0o444)
        os.rename(temporary, path)
        return oid

    def close(self):
        with self.lock:
            if self.packed:
                self.packed.stdin.close()
                self.packed.stdout.close()
                self.packed.wait()
                self.packed = None


class GitRepository:
    """Trees, commits and refs over the object database. Thread-safe; objects never change, so what
    was read once is remembered."""

    def __init__(self, path):
        self.path = path
        self.objects = Objects(path)
        self.trees = {}
        self.remembered = 0
        self.commits = {}
        self.blobs = {}
        self.listings = collections.OrderedDict()
        self.listed = 0
        self.listings_lock = threading.Lock()

    @classmethod
    def create(cls, path):
        os.makedirs(path)
        subprocess.run(["git", "init", "--quiet", "--bare", "--template=", "--initial-branch=main", path],
                       check=True, env=git_environment())
        with open(os.path.join(path, "config"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        return cls(path)

    def close(self):
        self.objects.close()

    # Objects

    def tree(self, oid):
        """{name: Entry} of one tree object; must not be changed by the caller."""
        entries = self.trees.get(oid)
        if entries is not None:
            return entries
        kind, data = self.objects.read(oid)
        if kind != "tree":
            raise KeyError(oid)
        entries, at = {}, 0
        while at < len(data):
            nul = data.index(b"\0", at)
            mode, _, name = data[at:nul].partition(b" ")
            entries[name.decode("utf-8", "surrogateescape")] = Entry(mode.decode(), data[nul + 1 : nul + 21].hex())
            at = nul + 21
        self._remember(oid, entries)
        return entries

    def _remember(self, oid, entries):
        self.remembered += len(entries)
        if self.remembered > REMEMBERED_ENTRIES:
            self.trees, self.remembered = {}, len(entries)
        self.trees[oid] = entries

    def write_tree(self, entries):
        """Store {name: Entry} as a tree object and return its id."""
        ordered = sorted(
            (name.encode("utf-8", "surrogateescape") + (b"/" if entry.mode == DIRECTORY else b""), entry)
            for name, entry in entries.items())
        data = b"".join(
            b"%s %s\0%s" % (entry.mode.encode(), key.rstrip(b"/"), bytes.fromhex(entry.oid))
            for key, entry in ordered)
        return self.objects.write("tree", data)

    def blob(self, oid):
        """Blob(size, lfs): the size of a blob and, if it is an LFS pointer, what it points at."""
        if oid not in self.blobs:
            _, size, start = self.objects.start(oid)
            match = POINTER.match(start) if size <= POINTER_MAX else None
            lfs = Pointer(match[1].decode(), int(match[2])) if match else None
            self.blobs[oid] = Blob(size, lfs)
        return self.blobs[oid]

    def content(self, oid):
        return self.objects.read(oid)[1]

    def full_id(self, short):
        """The id of the one commit whose id begins so, None if there is none or more than one."""
        if not SHORT_SHA1.match(short):
            return None
        try:
            return self.run("rev-parse", "--verify", "--quiet", short + "^{commit}").decode().strip()
        except GitError:
            return None

    def prune(self):
        """Delete every object that no ref leads to. Nobody may be writing."""
        self.run("prune", "--expire=now")
        self.trees, self.remembered, self.commits, self.blobs = {}, 0, {}, {}
        self.listings.clear()

    def fetch(self, other, oid):
        """Take an object, and all that hangs on it, from another repository."""
        self.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", other.path, oid)

    def run(self, *arguments, environment=None, data=b""):
        """The output of a git command in the repository, as bytes; GitError if it fails. `data` is its input."""
        done = subprocess.run(["git", "-C", self.path, *arguments], input=data, capture_output=True,
                              env={**git_environment(), **(environment or {})})
        if done.returncode != 0:
            raise GitError(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace").strip())
        return done.stdout

    def write_blob(self, data):
        return self.objects.write("blob", data)

    def commit(self, oid):
        """The commit behind an id, annotated tags followed; KeyError if there is none."""
        if oid not in self.commits:
            kind, data = self.objects.read(oid)
            head, _, message = data.decode("utf-8", "replace").partition("\n\n")
            fields = collections.defaultdict(list)
            for line in head.split("\n"):
                key, _, value = line.partition(" ")
                fields[key].append(value)
            if kind == "tag":
                return self.commit(fields["object"][0])
            if kind != "commit":
                raise KeyError(oid)
            title, _, rest = message.strip("\n").partition("\n")
            author, _, stamp = fields["author"][0].rpartition("> ")
            self.commits[oid] = Commit(oid, fields["tree"][0], tuple(fields["parent"]),
                                       author.partition(" <")[0], int(stamp.split()[0]), title, rest.strip("\n"))
        return self.commits[oid]

    def write_commit(self, tree, parents, author, title, message):
        stamp = f"{author} <{author}@users.noreply.huggingface.co> {int(time.time())} +0000"
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {stamp}", f"committer {stamp}"]
        text = _message(title + (f"\n\n{message}" if message else "") + "\n")
        return self.objects.write("commit", "\n".join(lines).encode() + b"\n\n" + text)

    def write_tag(self, name, target, author, message):
        stamp = f"{author} <{author}@users.noreply.huggingface.co> {int(time.time())} +0000"
        head = f"object {target}\ntype commit\ntag {name}\ntagger {stamp}\n\n"
        return self.objects.write("tag", head.encode() + _message(f"{message}\n"))

    # Paths

    def entry(self, tree, path):
        """The Entry at a path, None if there is none; the empty path is the root."""
        entry = Entry(DIRECTORY, tree)
        for name in path.split("/") if path else ():
            if entry.mode != DIRECTORY:
                return None
            entry = self.tree(entry.oid).get(name)
            if entry is None:
                return None
        return entry

    def listing(self, tree, recursive):
        """[(relative path, Entry)]: folders before files in each folder, by name."""
        key = tree, recursive
        found = self.listings.get(key)
        if found is None:
            found = list(self._walk(tree, "", recursive))
            with self.listings_lock:
                if key not in self.listings:
                    self.listings[key] = found
                    self.listed += len(found)
                while self.listed > LISTED_ENTRIES and len(self.listings) > 1:
                    self.listed -= len(self.listings.popitem(last=False)[1])
        return found

    def _walk(self, tree, prefix, recursive):
        entries = sorted(self.tree(tree).items(), key=lambda item: (item[1].mode != DIRECTORY, item[0]))
        for name, entry in entries:
            yield prefix + name, entry
            if recursive and entry.mode == DIRECTORY:
                yield from self._walk(entry.oid, prefix + name + "/", True)

    def last_commits(self, oid, paths):
        """{path: Commit} that last changed each path, seen from a commit along first parents."""
        found = {}
        commit = self.commit(oid)
        waiting = {path: self.entry(commit.tree, path) for path in paths}
        while waiting:
            parent = self.commit(commit.parents[0]) if commit.parents else None
            for path, entry in list(waiting.items()):
                if parent is None or self.entry(parent.tree, path) != entry:
                    found[path] = commit
                    del waiting[path]
            commit = parent
        return found

    def history(self, oid):
        """All commits reachable from one, newest first."""
        seen, order = {oid}, 0
        heap = [(-self.commit(oid).time, 0, oid)]
        while heap:
            commit = self.commit(heapq.heappop(heap)[2])
            yield commit
            for parent in commit.parents:
                if parent not in seen:
                    seen.add(parent)
                    order += 1
                    heapq.heappush(heap, (-self.commit(parent).time, order, parent))

    # Refs

    def ref(self, name):
        """The object id a ref holds (a tag object's own id), or None."""
        if ".." in name or "\0" in name or not _is_text(name):
            return None
        try:
            with open(os.path.join(self.path, name), encoding="ascii") as file:
                oid = file.read().strip()
                return oid if SHA1.match(oid) else None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._packed_refs().get(name)
        except OSError:  # a name that no file can have
            return None

    def refs(self, prefix="refs/"):
        """{full name: object id}, sorted."""
        found = {name: oid for name, oid in self._packed_refs().items() if name.startswith(prefix)}
        for folder, _, names in os.walk(os.path.join(self.path, prefix)):
            for name in names:
                ref = os.path.relpath(os.path.join(folder, name), self.path)
                oid = None if name.endswith(".lock") else self.ref(ref)
                if oid:
                    found[ref] = oid
        return dict(sorted(found.items()))

    def _packed_refs(self):
        try:
            with open(os.path.join(self.path, "packed-refs"), encoding="utf-8") as file:
                lines = [line.split() for line in file if line[0] not in "#^"]
        except FileNotFoundError:
            return {}
        return {name: oid for oid, name in lines}

    def update_ref(self, name, new, old=None):
        """Set a ref if it still is `old` (None: it must not exist), else RefConflict."""
        self._update_ref(name, new, old or "0" * 40)

    def delete_ref(self, name, old):
        self._update_ref("-d", name, old)

    def _update_ref(self, *arguments):
        try:
            self.run("update-ref", *arguments)
        except (GitError, ValueError) as error:  # a ValueError: a name that no command can be told
            raise RefConflict(str(error)) from None


class TreeEditor:
    """A tree that is changed path by path and written at the end; only touched folders are read."""

    def __init__(self, git, tree):
        self.git = git
        self.root = _Folder(git, tree)

    def entry(self, path):
        """The Entry at a path, or None. A changed folder has no id before write()."""
        folder, name = self._parent(path)
        item = folder.items().get(name) if folder else None
        return Entry(DIRECTORY, None) if isinstance(item, _Folder) else item

    def put(self, path, entry):
        """Put a file; ValueError if a folder is there, or a file is in place of one of its folders."""
        folder = self.root
        *folders, name = path.split("/")
        for part in folders:
            folder = folder.child(part, create=True)
            if folder is None:
                raise ValueError(f"a file is in the way of {path}")
        below = folder.child(name)
        if below and below.write():  # an emptied folder is nothing: git has none
            raise ValueError(f"a folder is in the way of {path}")
        folder.items()[name] = entry

    def remove(self, path):
        """Remove a file or a whole folder; False if there is nothing."""
        folder, name = self._parent(path)
        if folder is None or name not in folder.items():
            return False
        del folder.items()[name]
        return True

    def write(self):
        return self.root.write() or self.git.write_tree({})

    def _parent(self, path):
        folder = self.root
        *folders, name = path.split("/")
        for part in folders:
            folder = folder.child(part)
            if folder is None:
                return None, name
        return folder, name


class _Folder:
    """One folder of a TreeEditor: its items are Entries, or _Folders where something was looked at."""

    def __init__(self, git, oid=None):
        self.git = git
        self.oid = oid
        self._items = None

    def items(self):
        if self._items is None:
            self._items = dict(self.git.tree(self.oid)) if self.oid else {}
        return self._items

    def child(self, name, create=False):
        item = self.items().get(name)
        if isinstance(item, Entry) and item.mode == DIRECTORY:
            item = self.items()[name] = _Folder(self.git, item.oid)
        if item is None and create:
            item = self.items()[name] = _Folder(self.git)
        return item if isinstance(item, _Folder) else None

    def write(self):
        """The id of the written tree, or None if nothing is left in it."""
        if self._items is None:
            return self.oid
        entries = {}
        for name, item in self._items.items():
            if isinstance(item, _Folder):
                oid = item.write()
                if oid:
                    entries[name] = Entry(DIRECTORY, oid)
            else:
                entries[name] = item
        return self.git.write_tree(entries) if entries else None
