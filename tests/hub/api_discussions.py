"""Discussions and pull requests: opened, listed, read, commented, renamed, closed, merged."""

import discussions
import merging
from discussions import STATUSES, is_pull
from errors import ApiError
from http_engine import json_response
from routes import route

LONGEST = 65536


def open_pull_request(repo, account, title, description, base, commit, status):
    """Make refs/pr/N at a commit and remember the pull request; its number. The caller holds the lock."""
    record = discussions.add(repo, account, title, description, {"base": base, "status": status})
    repo.git.update_ref(discussions.ref(record), commit)
    repo.save()
    return record["num"]


def _text(body, name, least, most):
    """A text of a body, without the blanks around it; 400 if it has the wrong length."""
    value = body.get(name)
    text = value.strip() if isinstance(value, str) else ""
    if not least <= len(text) <= most:
        raise ApiError(400, f'"{name}" must have {least} to {most} characters')
    return text


@route("POST", "/api/{T}/{id}/discussions")
def open_discussion(context, T, id):
    repo = context.repo(T, id, "propose")
    body = context.json()
    title, description = _text(body, "title", 3, 200), _text(body, "description", 0, LONGEST)
    context.quotas.action(context.account, "discussion")
    with repo.lock:
        if body.get("pullRequest"):
            number = open_pull_request(
                repo, context.account, title, description, "main", repo.commit("main").oid, "draft"
            )
        else:
            number = discussions.add(repo, context.account, title, description)["num"]
            repo.save()
    return json_response(
        {
            "num": number,
            "pullRequest": bool(body.get("pullRequest")),
            "url": f"{context.endpoint}/{repo.prefix}{repo.id}/discussions/{number}",
        }
    )


@route("GET", "/api/{T}/{id}/discussions")
def list_discussions(context, T, id):
    repo = context.repo(T, id)
    page, size = context.number("p", 0), context.config.page(None, 50, 50)
    found = [record for record in repo.meta["discussions"][::-1] if _wanted(context, record)]
    items = [_describe(repo, record) for record in found[page * size : (page + 1) * size]]
    return json_response({"discussions": items, "count": len(found), "start": page * size})


def _wanted(context, record):
    kind, status = context.request.param("type", "all"), context.request.param("status", "all")
    if kind not in ("all", "discussion", "pull_request") or status not in ("all", "open", "closed"):
        raise ApiError(400, "type is all, discussion or pull_request; status is all, open or closed")
    author = context.request.param("author", "").lower()
    return (
        kind in ("all", "pull_request" if is_pull(record) else "discussion")
        and (status == "all" or record["status"] in STATUSES[status])
        and author in ("", record["author"])
    )


@route("GET", "/api/{T}/{id}/discussions/{number}")
def get_discussion(context, T, id, number):
    repo = context.repo(T, id)
    record = discussions.find(repo, number)
    answer = {**_describe(repo, record), "events": discussions.events(repo, record)}
    if is_pull(record):
        answer["changes"] = {"base": f"refs/heads/{record['base']}"}
        if record["merged"]:
            answer["changes"]["mergeCommitId"] = record["merged"]["commit"]
        waiting = record["status"] in STATUSES["open"]
        answer["filesWithConflicts"] = merging.try_merge(repo, record).conflicts if waiting else []
        if context.flag("diff"):
            answer["diff"] = discussions.diff(repo, record)
    return json_response(answer)


def _describe(repo, record):
    comments = sum(item["type"] == "comment" for item in record["events"])
    return {
        "num": record["num"],
        "title": record["title"],
        "status": record["status"],
        "isPullRequest": is_pull(record),
        "createdAt": record["createdAt"],
        "pinned": False,
        "author": {"name": record["author"], "type": "user"},
        "numComments": comments,
        "repo": {"name": repo.id, "type": repo.type},
    }


# Changes. Whoever may open a discussion may comment; its author, and those who write to the repository, may
# do the rest.


def _own(context, repo, author):
    if context.account.name != author:
        context.repo(repo.type, repo.id, "write")


@route("POST", "/api/{T}/{id}/discussions/{number}/comment")
def add_comment(context, T, id, number):
    repo = context.repo(T, id, "propose")
    text = _text(context.json(), "comment", 1, LONGEST)
    with repo.lock:
        record = discussions.find(repo, number)
        made = discussions.comment(context.account.name, text)
        record["events"].append(made)
        repo.save()
    return json_response({"newMessage": made})


@route("POST", "/api/{T}/{id}/discussions/{number}/comment/{comment}/edit")
def edit_comment(context, T, id, number, comment):
    repo = context.repo(T, id, "propose")
    text = _text(context.json(), "content", 1, LONGEST)
    with repo.lock:
        item = discussions.find_comment(discussions.find(repo, number), comment)
        if item["author"]["name"] != context.account.name:
            raise ApiError(403, "Only the author of a comment can edit it")
        discussions.edit_comment(item, context.account.name, text)
        repo.save()
    return json_response({"updatedComment": item})


@route("POST", "/api/{T}/{id}/discussions/{number}/comment/{comment}/hide")
def hide_comment(context, T, id, number, comment):
    repo = context.repo(T, id, "propose")
    with repo.lock:
        item = discussions.find_comment(discussions.find(repo, number), comment)
        _own(context, repo, item["author"]["name"])
        discussions.hide_comment(item, context.account.name)
        repo.save()
    return json_response({"updatedComment": item})


@route("POST", "/api/{T}/{id}/discussions/{number}/title")
def change_title(context, T, id, number):
    repo = context.repo(T, id, "propose")
    title = _text(context.json(), "title", 3, 200)
    with repo.lock:
        record = discussions.find(repo, number)
        _own(context, repo, record["author"])
        made = discussions.event(context.account.name, "title-change", {"from": record["title"], "to": title})
        record["title"] = title
        record["events"].append(made)
        repo.save()
    return json_response({"newTitle": made})


def _set_status(context, record, status, comment):
    """Change a record's status, with a comment if there is one; the event of the change."""
    if isinstance(comment, str) and comment.strip():
        record["events"].append(discussions.comment(context.account.name, comment.strip()))
    made = discussions.event(context.account.name, "status-change", {"status": status})
    record["status"] = status
    record["events"].append(made)
    return made


@route("POST", "/api/{T}/{id}/discussions/{number}/status")
def change_status(context, T, id, number):
    repo = context.repo(T, id, "propose")
    body = context.json()
    if body.get("status") not in ("open", "closed"):
        raise ApiError(400, '"status" must be "open" or "closed"')
    with repo.lock:
        record = discussions.find(repo, number)
        _own(context, repo, record["author"])
        if record["status"] == "merged":
            raise ApiError(400, "This pull request is merged: its status cannot change")
        made = _set_status(context, record, body["status"], body.get("comment"))
        repo.save()
    return json_response({"newStatus": made})


@route("POST", "/api/{T}/{id}/discussions/{number}/merge")
def merge(context, T, id, number):
    repo = context.repo(T, id, "write")
    body = context.json()
    with repo.lock:
        record = discussions.find(repo, number)
        if not is_pull(record):
            raise ApiError(400, "This is not a pull request")
        mergeable = ("open", "draft") if context.config.draft_merge == "accept" else ("open",)
        if record["status"] not in mergeable:
            raise ApiError(400, f"This pull request is {record['status']}: only an open one can be merged")
        merging.merge(context, repo, record, context.account)
        made = _set_status(context, record, "merged", body.get("comment"))
        repo.save()
    return json_response({"newStatus": made})


@route("DELETE", "/api/{T}/{id}/discussions/{number}/ref")
def delete_ref(context, T, id, number):
    """Free what only a pull request holds, once it is merged or closed."""
    repo = context.repo(T, id, "write")
    with repo.lock:
        record = discussions.find(repo, number)
        if not is_pull(record) or record["status"] not in STATUSES["closed"]:
            raise ApiError(400, "Only the ref of a merged or closed pull request can be deleted")
        old = repo.git.ref(discussions.ref(record))
        if old is None:
            raise ApiError(404, "The ref is deleted already")
        repo.git.delete_ref(discussions.ref(record), old)
    return json_response({})
