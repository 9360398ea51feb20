"""Pull requests: opening one and reading one."""

import time

from errors import ApiError
from gitrepo import iso_date
from http_engine import json_response
from routes import route


def open_pull_request(repo, account, title, description, base, commit, status):
    """Make refs/pr/N at a commit and remember the pull request; its number. The caller holds the lock."""
    number = len(repo.meta["discussions"]) + 1
    repo.git.update_ref(f"refs/pr/{number}", commit)
    repo.meta["discussions"].append({
        "num": number, "title": title, "description": description, "author": account.name, "base": base,
        "status": status, "isPullRequest": True, "createdAt": iso_date(time.time()),
    })
    repo.save()
    return number


@route("POST", "/api/{T}/{id}/discussions")
def open_discussion(context, T, id):
    repo = context.repo(T, id, "propose")
    body = context.json()
    title = str(body.get("title") or "")
    if not 3 <= len(title) <= 200:
        raise ApiError(400, "The title must have 3 to 200 characters")
    if not body.get("pullRequest"):
        raise ApiError(400, "Only pull requests can be opened here")
    context.quotas.action(context.account, "discussion")
    with repo.lock:
        head = repo.resolve("main")
        number = open_pull_request(repo, context.account, title, str(body.get("description") or ""), "main",
                                   head.oid, "draft")
    return json_response({"num": number, "pullRequest": True,
                          "url": f"{context.endpoint}/{repo.prefix}{repo.id}/discussions/{number}"})


@route("GET", "/api/{T}/{id}/discussions")
def list_discussions(context, T, id):
    repo = context.repo(T, id)
    page, size = context.number("p", 0), context.config.page(None, 50, 50)
    found = repo.meta["discussions"][::-1]
    return json_response({"discussions": [_describe(repo, item) for item in found[page * size : (page + 1) * size]],
                          "count": len(found), "start": page * size})


@route("GET", "/api/{T}/{id}/discussions/{number}")
def get_discussion(context, T, id, number):
    repo = context.repo(T, id)
    discussion = next((item for item in repo.meta["discussions"] if str(item["num"]) == number), None)
    if discussion is None:
        raise ApiError(404, f"Discussion {number} not found")
    return json_response({**_describe(repo, discussion), "events": [], "filesWithConflicts": [],
                          "changes": {"base": f"refs/heads/{discussion['base']}"}})


def _describe(repo, discussion):
    return {
        "num": discussion["num"], "title": discussion["title"], "status": discussion["status"],
        "isPullRequest": discussion["isPullRequest"], "createdAt": discussion["createdAt"],
        "author": {"name": discussion["author"]}, "repo": {"name": repo.id, "type": repo.type},
    }
