"""Merging a pull request, by git itself."""

import collections
import os
import tempfile

import discussions
from errors import ApiError
from gitrepo import GitError, RefConflict

Merge = collections.namedtuple("Merge", "tree conflicts")


def try_merge(repo, record):
    """Merge(tree, conflicts) of a pull request into its base as they are, without a trace in the repository.
    `conflicts` is a list of paths, or True if git cannot merge the two at all."""
    with tempfile.TemporaryDirectory(dir=os.path.join(repo.store.root, "tmp")) as objects:
        return _merge(
            repo,
            record,
            {
                "GIT_OBJECT_DIRECTORY": objects,
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(repo.git.path, "objects"),
            },
        )


def _merge(repo, record, environment):
    base, head = discussions.ends(repo, record)
    if head is None:
        return Merge(None, True)
    command = ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", base, head]
    try:
        output = repo.git.run(*command, environment=environment)
    except GitError as error:
        if error.status != 1:  # no common history
            return Merge(None, True)
        output = error.output
    tree, *paths = output.decode("utf-8", "surrogateescape").rstrip("\0").split("\0")
    return Merge(tree, paths)


def merge(context, repo, record, account):
    """Merge an open pull request: one commit on its base, whose id is answered. The caller holds the lock."""
    tried = try_merge(repo, record)
    if tried.conflicts:
        raise ApiError(
            context.config.merge_conflict_status,
            "This pull request has conflicts and cannot be merged",
            body={"filesWithConflicts": tried.conflicts},
        )
    base, head = discussions.ends(repo, record)
    made = discussions.commits(repo, record)
    tree = _merge(repo, record, {}).tree
    parents = [base, head] if context.config.merge_commit == "merge" else [base]
    message = "\n".join(f"- {commit.title} ({commit.oid})" for commit in made)
    authors = sorted({commit.author for commit in made} - {account.name})
    trailers = "\n".join(f"Co-authored-by: {name} <{name}@users.noreply.huggingface.co>" for name in authors)
    oid = repo.git.write_commit(
        tree,
        parents,
        account.name,
        f"{record['title']} (#{record['num']})",
        "\n\n".join(filter(None, (message, trailers))),
    )
    try:
        repo.git.update_ref(f"refs/heads/{record['base']}", oid, base)
    except RefConflict:
        raise ApiError(409, f"The branch {record['base']} was updated. Please try again.") from None
    record["merged"] = {"base": base, "head": head, "commit": oid}
    return oid
