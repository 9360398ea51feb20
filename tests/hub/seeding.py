"""Repositories that would take too long to make through the API: a million files in one commit.

The trees are written directly, each folder once. The files share a few thousand contents, for an object
in git costs a file on disk; names are all different. `git fsck` finds nothing wrong with the result.
"""

from gitrepo import DIRECTORY, REGULAR, Entry, TreeEditor

CONTENTS_MAX = 100_000


def many_files(repo, path, files, per_folder=None, contents=1000, branch="main"):
    """Commit `files` small files below the new folder `path`: `path/f0000000.txt` …, or, with
    `per_folder`, `path/d00000/f0000000.txt` …, so many in each. Returns the commit's id."""
    if files < 1 or not 1 <= contents <= CONTENTS_MAX or (per_folder is not None and per_folder < 1) or not path:
        raise ValueError("files, per_folder and contents are positive numbers, path is a folder")
    git = repo.git
    blobs = [Entry(REGULAR, git.write_blob(b"content %d\n" % number)) for number in range(min(contents, files))]

    def folder(first, last):
        return git.write_tree({f"f{number:07d}.txt": blobs[number % len(blobs)] for number in range(first, last)})

    if per_folder:
        starts = range(0, files, per_folder)
        top = git.write_tree({f"d{index:05d}": Entry(DIRECTORY, folder(first, min(first + per_folder, files)))
                              for index, first in enumerate(starts)})
    else:
        top = folder(0, files)
    with repo.lock:
        ref = f"refs/heads/{branch}"
        head = git.commit(git.ref(ref))
        editor = TreeEditor(git, head.tree)
        editor.put(path, Entry(DIRECTORY, top))
        commit = git.write_commit(editor.write(), [head.oid], repo.namespace, f"Add {files} files", "")
        git.update_ref(ref, commit, head.oid)
    return commit
