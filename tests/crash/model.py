"""What a program does to a branch, and what must be there when it was acknowledged.

An `Op` is a few system calls on a folder and the change of the files ({path: bytes}) that they come to. Every content is
unique, so bytes found anywhere tell which operation they are of.
"""

import hashlib
import os

FOLDERS = ("", "a/", "a/deep/", "b/")
NAMES = ("one.txt", "two.bin", "three.json", "four.bin", "five.txt")
GROUP = ("group/1.txt", "group/2.bin", "group/3.txt")


def git_ids(content):
    """The ids a path can have in git's tree for these bytes: a regular file's, an LFS pointer's."""
    pointer = (f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\n"
               f"size {len(content)}\n").encode()
    return [hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest() for text in (content, pointer)]


class Op:
    """`run(root)` does it; `after` is what the files are then; `mixed`: paths that an interruption leaves half done."""

    def __init__(self, text, run, changes, mixed=(), synced=None, moves=(), group=False):
        self.text, self.run, self.changes, self.mixed = text, run, changes, set(mixed)
        self.synced, self.moves, self.group = synced, moves, group


def write_all(fd, data):
    for at in range(0, len(data), 50000):
        os.write(fd, data[at:at + 50000])


class Program:
    """Makes operations out of a dice; `files` is what was acknowledged."""

    def __init__(self, dice):
        self.dice = dice
        self.files = {}
        self.groups = {}  # stamp: contents
        self.number = 0

    def next(self):
        kinds = {"create": 6, "replace": 5, "save": 3, "append": 4, "patch": 4, "cut": 2, "move": 4, "move_folder": 2,
                 "unlink": 3, "group": 2}
        kind = self.dice.choices(list(kinds), list(kinds.values()))[0]
        return getattr(self, kind)()

    def fresh(self):
        """Bytes that were never used before."""
        self.number += 1
        size = self.dice.choice((0, 10, 100, 5000, 30000, 200000))
        return b"content %d\n" % self.number + self.dice.randbytes(self.dice.randint(0, size))

    def any_path(self):
        return self.dice.choice(FOLDERS) + self.dice.choice(NAMES)

    def a_file(self):
        names = sorted(name for name in self.files if not name.startswith("group/"))
        return self.dice.choice(names) if names else None

    def create(self, synced=False):
        path, data = self.any_path(), self.fresh()

        def run(root):
            name = os.path.join(root, path)
            os.makedirs(os.path.dirname(name), exist_ok=True)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(fd, data)
                if synced:
                    os.fsync(fd)
            finally:
                os.close(fd)
        return Op(f"{'save' if synced else 'create'} {path} {len(data)}", run, {path: data}, [path],
                  synced=path if synced else None)

    def save(self):
        return self.create(synced=True)

    def replace(self):
        path, data = self.any_path(), self.fresh()
        synced = self.dice.random() < 0.3

        def run(root):
            name = os.path.join(root, path)
            os.makedirs(os.path.dirname(name), exist_ok=True)
            fd = os.open(name + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            os.rename(name + ".tmp", name)
            if synced:
                fd = os.open(name, os.O_RDWR)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        return Op(f"replace {path} {len(data)} synced={synced}", run, {path: data}, synced=path if synced else None)

    def edit(self, text, path, data, call):
        def run(root):
            fd = os.open(os.path.join(root, path), os.O_RDWR)
            try:
                call(fd)
            finally:
                os.close(fd)
        return Op(f"{text} {path}", run, {path: data}, [path])

    def append(self):
        path = self.a_file()
        if path is None:
            return self.create()
        more, size = self.fresh(), len(self.files[path])
        return self.edit(f"append {len(more)}", path, self.files[path] + more, lambda fd: os.pwrite(fd, more, size))

    def patch(self):
        path = self.a_file()
        if path is None:
            return self.create()
        old, part = self.files[path], self.fresh()[:5000]
        at = self.dice.randint(0, len(old))
        new = old[:at] + part + old[at + len(part):]
        return self.edit(f"patch {at} {len(part)}", path, new, lambda fd: os.pwrite(fd, part, at))

    def cut(self):
        path = self.a_file()
        if path is None:
            return self.create()
        size = self.dice.randint(0, len(self.files[path]))
        mark = b"cut %d\n" % self.number
        self.number += 1
        new = self.files[path][:size] + mark

        def call(fd):
            os.ftruncate(fd, size)
            os.pwrite(fd, mark, size)
        return self.edit(f"cut {size}", path, new, call)

    def move(self):
        path, to = self.a_file(), self.any_path()
        if path is None or path == to:
            return self.create()

        def run(root):
            os.makedirs(os.path.dirname(os.path.join(root, to)), exist_ok=True)
            os.rename(os.path.join(root, path), os.path.join(root, to))
        return Op(f"move {path} {to}", run, {path: None, to: self.files[path]}, moves=[(path, to)])

    def move_folder(self):
        there = [folder for folder in ("a", "b", "c", "a/deep") if any(name.startswith(folder + "/")
                                                                     for name in self.files)]
        free = [folder for folder in ("a", "b", "c", "d") if not any(name.startswith(folder + "/")
                                                                  for name in self.files)]
        if not there or not free:
            return self.create()
        source, target = self.dice.choice(there), self.dice.choice(free)
        if target == source.split("/")[0]:
            return self.create()

        def run(root):
            for here, _, _ in os.walk(os.path.join(root, target), topdown=False):
                os.rmdir(here)  # empty ones may have stayed
            os.rename(os.path.join(root, source), os.path.join(root, target))
        moves = [(name, target + name[len(source):]) for name in self.files if name.startswith(source + "/")]
        changes = {name: None for name, _ in moves} | {to: self.files[name] for name, to in moves}
        return Op(f"move {source}/ {target}/", run, changes, moves=moves)

    def unlink(self):
        path = self.a_file()
        if path is None:
            return self.create()
        return Op(f"unlink {path}", lambda root: os.unlink(os.path.join(root, path)), {path: None})

    def group(self):
        """Files that belong together: no commit has some of them in one version and some in another."""
        stamp = b"stamp %d\n" % self.number
        changes = {name: stamp + self.fresh() for name in GROUP}
        self.groups[stamp] = list(changes.values())

        def run(root):
            os.makedirs(os.path.join(root, "group"), exist_ok=True)
            for name, data in changes.items():
                fd = os.open(os.path.join(root, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    write_all(fd, data)
                finally:
                    os.close(fd)
        return Op(f"group {stamp.decode().strip()}", run, changes, GROUP, group=True)

    def accept(self, op):
        """The operation was acknowledged."""
        for path, data in op.changes.items():
            if data is None:
                self.files.pop(path, None)
            else:
                self.files[path] = data
