"""Discussions and pull requests as a repository keeps them, in `meta["discussions"]`.

A record has its events: comments (the first is the description), changes of status and of the title. The
commits of a pull request are not kept but read from git: what its ref has and its base has not. A pull
request that was merged remembers the two commits that were merged, so that it reads the same for ever.
"""

import html
import secrets
import time

from errors import ApiError
from gitrepo import GitError, iso_date

STATUSES = {"open": ("open", "draft"), "closed": ("closed", "merged")}  # what a filter means
HIDDEN = "This comment has been hidden"


def now():
    return iso_date(time.time())


def event(account_name, kind, data, created=None):
    return {
        "id": secrets.token_hex(12),
        "type": kind,
        "author": {"name": account_name, "type": "user"},
        "createdAt": created or now(),
        "data": data,
    }


def comment(account_name, text):
    """The event of a comment."""
    return event(
        account_name,
        "comment",
        {
            "edited": False,
            "hidden": False,
            "latest": _version(account_name, text),
            "numEdits": 0,
            "history": [],
        },
    )


def _version(account_name, text):
    shown = f"<p>{html.escape(text)}</p>\n"
    return {"raw": text, "html": shown, "updatedAt": now(), "author": {"name": account_name, "type": "user"}}


def edit_comment(item, account_name, text):
    """Give a comment another text; the old one goes into its history."""
    data = item["data"]
    if data["hidden"]:
        raise ApiError(400, "A hidden comment cannot be edited")
    data["history"].append(data["latest"])
    data.update(edited=True, latest=_version(account_name, text), numEdits=len(data["history"]))


def hide_comment(item, account_name):
    """Take away a comment's text, the older ones included."""
    item["data"].update(hidden=True, hiddenBy=account_name, latest=_version(account_name, HIDDEN), history=[])


def add(repo, account, title, description, pull=None):
    """Keep a new discussion, or a pull request if `pull` is {base, status}; its record. The caller holds the
    lock."""
    if repo.meta.get("discussionsDisabled"):
        raise ApiError(403, "Discussions are disabled for this repository")
    number = len(repo.meta["discussions"]) + 1
    while repo.git.ref(f"refs/pr/{number}"):  # made by a push
        number += 1
    record = {
        "num": number,
        "title": title,
        "author": account.name,
        "status": pull["status"] if pull else "open",
        "base": pull["base"] if pull else None,
        "merged": None,
        "createdAt": now(),
        "events": [comment(account.name, description)] if description or not pull else [],
    }
    repo.meta["discussions"].append(record)
    return record


def find(repo, number):
    """The record of a number, given as text; ApiError 404."""
    for record in repo.meta["discussions"]:
        if str(record["num"]) == number:
            return record
    raise ApiError(404, f"Discussion {number} not found")


def find_comment(record, comment_id):
    """The event of a comment; ApiError 404."""
    for item in record["events"]:
        if item["type"] == "comment" and item["id"] == comment_id:
            return item
    raise ApiError(404, f"Comment {comment_id} not found")


def ref(record):
    return f"refs/pr/{record['num']}"


def is_pull(record):
    return record["base"] is not None


def pull_of(repo, revision):
    """The record of the pull request whose ref a revision is, or None."""
    return next((item for item in repo.meta["discussions"] if is_pull(item) and ref(item) == revision), None)


def may_commit(config, repo, revision):
    """Refuse commits to the ref of a pull request that was merged or closed."""
    record = pull_of(repo, revision)
    if record and record["status"] in STATUSES["closed"] and config.ended_pull_request == "refuse":
        raise ApiError(403, f"Pull request {record['num']} is {record['status']}: no commits are possible")


def ends(repo, record):
    """(commit of the base, commit of the pull request), as they were merged if they were; (None, None) if
    the ref, or the base, is gone."""
    if record["merged"]:
        return record["merged"]["base"], record["merged"]["head"]
    base, head = repo.git.ref(f"refs/heads/{record['base']}"), repo.git.ref(ref(record))
    return (base, head) if base and head else (None, None)


def commits(repo, record):
    """The commits of a pull request, the oldest first; none if git has forgotten them."""
    base, head = ends(repo, record)
    if head is None:
        return []
    try:
        ids = repo.git.run("rev-list", "--reverse", "--topo-order", f"{base}..{head}").decode().split()
    except GitError:
        return []
    return [repo.git.commit(oid) for oid in ids]


def diff(repo, record):
    """What a pull request changes, as a unified diff against where it left its base; nothing if git has
    forgotten it."""
    base, head = ends(repo, record)
    if head is None:
        return ""
    options = ["-c", "core.quotePath=false", "diff", "--no-color", "--no-renames"]
    for between in ([f"{base}...{head}"], [base, head]):  # the second if they have no common history
        try:
            return repo.git.run(*options, *between).decode("utf-8", "replace")
        except GitError:
            continue
    return ""


def events(repo, record):
    """All events of a record, commits included, in order of time."""
    made = [
        {
            **event(
                commit.author, "commit", {"subject": commit.title, "oid": commit.oid}, iso_date(commit.time)
            ),
            "id": commit.oid[:24],
        }
        for commit in (commits(repo, record) if is_pull(record) else [])
    ]
    return sorted(made + record["events"], key=lambda item: item["createdAt"])
