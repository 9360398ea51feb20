"""Which LFS objects the history of a repository points at."""

import collections

from gitrepo import DIRECTORY, SUBMODULE

Found = collections.namedtuple("Found", "pointer path blob commit ref")


def find_pointers(git, tips):
    """{LFS oid: Found} of all commits behind the tips {ref: commit id}; each as its oldest commit has it.
    Every tree is looked at once."""
    found, seen = {}, set()
    for ref, tip in tips.items():
        for commit in reversed(list(git.history(tip))):
            for path, blob in _new_files(git, commit.tree, "", seen):
                pointer = git.blob(blob).lfs
                if pointer and pointer.oid not in found:
                    found[pointer.oid] = Found(pointer, path, blob, commit, ref)
    return found


def _new_files(git, tree, prefix, seen):
    """(path, blob id) of the files below a tree, those of trees seen before left out."""
    if tree in seen:
        return
    seen.add(tree)
    for name, entry in git.tree(tree).items():
        if entry.mode == DIRECTORY:
            yield from _new_files(git, entry.oid, f"{prefix}{name}/", seen)
        elif entry.mode != SUBMODULE:
            yield prefix + name, entry.oid
