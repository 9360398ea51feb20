"""What a power failure leaves of a staging folder: replays the log of points.c, and loses what was not synced.

The model is harder than most disks: of a file's writes and sizes since its last sync any may be lost, and one may be torn;
of a folder's changes of names since its last sync an arbitrary tail is lost. What was written before the begin of a sync that
came to its end is there.
"""

import os
import struct

RECORD = struct.Struct("<IHHQQQQ")
WRITE, SIZE, CREATE, RENAME, UNLINK, MKDIR, RMDIR, SYNC_BEGIN, SYNC_END = range(1, 10)  # as in points.c
SECTOR = 512


def records(path):
    """(kind, inode, offset, length, path, path2, data) of every whole record."""
    if not os.path.exists(path):  # killed before its first change
        return
    with open(path, "rb") as file:
        log = file.read()
    at = 0
    while at + RECORD.size <= len(log):
        kind, n_path, n_path2, ino, offset, length, n_data = RECORD.unpack_from(log, at)
        end = at + RECORD.size + n_path + n_path2 + n_data
        if end > len(log):
            return
        at += RECORD.size
        first, second = log[at:at + n_path].decode(), log[at + n_path:at + n_path + n_path2].decode()
        yield kind, ino, offset, length, first, second, log[end - n_data:end]
        at = end


class Disk:
    """The staging folder as a disk has it: files with what was written to them, folders with what happened in them."""

    def __init__(self, folder, inodes, log):
        """`folder`: a copy of the staging folder as it was before the log began, all of it safe; `inodes`: {inode: path
        below the folder} of the files that the log may name."""
        self.files = []    # [content at the start, [(kind, offset, length, data)], how many of them are safe]
        self.folders = {}  # path: [{name: file or None (a folder)}, [(name, file or None, gone)], how many are safe]
        self.of_inode = {}
        self.begun = {}
        self._adopt(folder, {path: inode for inode, path in inodes.items()})
        for record in records(log):
            self._replay(*record)

    def _new_file(self, inode, content):
        """Inode numbers are used again; files are not."""
        file = self.of_inode[inode] = [content, [], 0]
        self.files.append(file)
        return file

    def _adopt(self, top, inodes):
        for here, folders, names in os.walk(top):
            below = os.path.relpath(here, top)
            below = "" if below == "." else below
            found = dict.fromkeys(folders)
            for name in names:
                with open(os.path.join(here, name), "rb") as file:
                    found[name] = self._new_file(inodes[os.path.join(below, name)], file.read())
            self.folders[below] = [found, [], 0]

    def _name(self, path, file, gone=False):
        folder, name = os.path.split(path)
        self.folders.setdefault(folder, [{}, [], 0])[1].append((name, file, gone))

    def _now(self, path):
        """What a path means at this point of the replay."""
        folder, name = os.path.split(path)
        start, changes, _ = self.folders[folder]
        found = start.get(name)
        for changed, file, gone in changes:
            if changed == name:
                found = None if gone else file
        return found

    def _target(self, inode, path):
        return self.folders.get(path) or self.of_inode.get(inode)

    def _replay(self, kind, inode, offset, length, path, path2, data):
        if kind in (WRITE, SIZE):
            if inode in self.of_inode:
                self.of_inode[inode][1].append((kind, offset, length, data))
        elif kind == CREATE:
            self._name(path, self._new_file(inode, b""))
        elif kind == RENAME:
            self._name(path2, self._now(path))
            self._name(path, None, gone=True)
        elif kind in (UNLINK, RMDIR):
            self._name(path, None, gone=True)
        elif kind == MKDIR:
            self._name(path, None)
            self.folders.setdefault(path, [{}, [], 0])
        elif kind == SYNC_BEGIN:
            target = self._target(inode, path)
            self.begun[offset] = target, len(target[1]) if target else 0
        elif kind == SYNC_END:
            target, count = self.begun[offset]
            if target:
                target[2] = max(target[2], count)

    @staticmethod
    def _content(file, dice):
        content, changes, safe = file
        content = bytearray(content)
        lost = dice.random()
        for index, (kind, offset, length, data) in enumerate(changes):
            if index >= safe:
                if dice.random() < lost:
                    continue
                if kind == WRITE and dice.random() < 0.1:  # torn
                    data = data[:dice.randrange(0, len(data) + 1, SECTOR)]
            if kind == SIZE:
                del content[length:]
                content.extend(bytes(length - len(content)))
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset:offset + len(data)] = data
        return content

    def write(self, folder, dice):
        """Make `folder`, which is not there yet, as the failure leaves it."""
        self._write(folder, "", dice)

    def _write(self, target, path, dice):
        os.mkdir(target, 0o700)
        names, changes, safe = self.folders.get(path, ({}, [], 0))
        names = dict(names)
        for name, file, gone in changes[:dice.randint(safe, len(changes))]:
            if gone:
                names.pop(name, None)
            else:
                names[name] = file
        for name, file in names.items():
            if file is None:
                self._write(os.path.join(target, name), os.path.join(path, name), dice)
                continue
            with open(os.path.join(target, name), "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as made:
                made.write(self._content(file, dice))
