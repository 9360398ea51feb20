"""History without some files: every commit behind the refs is made again, as `git filter-repo` would."""

import re

from gitrepo import DIRECTORY, Entry


class Rewriter:
    """Makes commits of one repository again without the blobs in `gone`."""

    def __init__(self, git, gone):
        self.git = git
        self.gone = gone
        self.trees = {}
        self.commits = {}

    def tip(self, oid):
        """What takes the place of a commit or annotated tag; the same id if nothing changes."""
        kind, data = self.git.objects.read(oid)
        if kind == "tag":
            target = re.match(rb"object ([0-9a-f]{40})", data)[1].decode()
            return self.git.objects.write("tag", data.replace(target.encode(), self.tip(target).encode(), 1))
        for old in self.git.run("rev-list", "--reverse", "--topo-order", oid).decode().split():
            if old not in self.commits:
                self.commits[old] = self._commit(old)
        return self.commits[oid]

    def _commit(self, oid):
        """A commit again, its parents having been made again."""
        head, _, message = self.git.objects.read(oid)[1].partition(b"\n\n")
        lines = []
        for line in head.split(b"\n"):
            key, _, value = line.partition(b" ")
            if key == b"tree":
                line = b"tree " + (self._tree(value.decode()) or self.git.write_tree({})).encode()
            elif key == b"parent":
                line = b"parent " + self.commits[value.decode()].encode()
            lines.append(line)
        return self.git.objects.write("commit", b"\n".join(lines) + b"\n\n" + message)

    def _tree(self, oid):
        """A tree again, None if nothing is left in it."""
        if oid not in self.trees:
            entries = {}
            for name, entry in self.git.tree(oid).items():
                if entry.mode == DIRECTORY:
                    below = self._tree(entry.oid)
                    entry = Entry(DIRECTORY, below) if below else None
                elif entry.oid in self.gone:
                    entry = None
                if entry:
                    entries[name] = entry
            self.trees[oid] = self.git.write_tree(entries) if entries else None
        return self.trees[oid]


def forget_blobs(git, blobs):
    """Take blobs out of the history of every ref."""
    rewriter = Rewriter(git, set(blobs))
    for ref, oid in git.refs().items():
        new = rewriter.tip(oid)
        if new != oid:
            git.update_ref(ref, new, oid)
