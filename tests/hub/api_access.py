"""Gated repositories: asking for access, and what the authors make of it.

`auto`: whoever asks has access at once. `manual`: the request is pending until it is accepted or rejected.
"""

import hashlib
import time

from errors import ApiError
from gitrepo import iso_date
from http_engine import Response, json_response
from routes import encode_cursor, route
from store import ACCOUNTS

STATUSES = ("pending", "accepted", "rejected")


def _gated(context, kind, id, need):
    repo = context.repo(kind, id, need)
    if not repo.gated:
        raise ApiError(400, "This repository is not gated")
    return repo


def _set(repo, name, status):
    with repo.lock:
        repo.meta["requests"][name] = {"status": status, "timestamp": iso_date(time.time())}
        repo.save()


@route("POST", "/{pre}{id}/ask-access")
def ask_access(context, pre, id):
    account = context.user()
    repo = _gated(context, pre, id, "metadata")
    if repo.request_status(account) is None:
        _set(repo, account.name, "accepted" if repo.gated == "auto" else "pending")
    return Response(303, b"", [("Location", f"/{repo.prefix}{repo.id}")])


@route("POST", "/api/{T}/{id}/user-access-request/cancel")
def cancel(context, T, id):
    """The account's own request; access that it gave ends."""
    account = context.user()
    repo = _gated(context, T, id, "metadata")
    with repo.lock:
        if repo.meta["requests"].pop(account.name, None) is None:
            raise ApiError(404, "You have not asked for access to this repository")
        repo.save()
    return json_response({})


@route("GET", "/api/{T}/{id}/user-access-request/{status}")
def list_requests(context, T, id, status):
    repo = _gated(context, T, id, "write")
    if status not in STATUSES:
        raise ApiError(400, f"status is one of {', '.join(STATUSES)}")
    after = context.cursor() or ""
    found = [
        name
        for name, item in sorted(repo.meta["requests"].items())
        if item["status"] == status and name > after
    ]
    limit = context.config.page(context.number("limit"), 1000, 1000)
    headers = [context.next_link(cursor=encode_cursor(found[limit - 1]))] if len(found) > limit else []
    return json_response([_describe(repo, name) for name in found[:limit]], 200, headers)


def _describe(repo, name):
    item = repo.meta["requests"][name]
    return {
        "requestId": _request_id(repo, name),
        "status": item["status"],
        "timestamp": item["timestamp"],
        "user": {"user": name, "fullname": name.capitalize(), "email": f"{name}@example.org", "type": "user"},
    }


def _request_id(repo, name):
    return hashlib.sha256(f"request {repo.uid} {name}".encode()).hexdigest()[:24]


@route("POST", "/api/{T}/{id}/user-access-request/handle")
def handle(context, T, id):
    repo = _gated(context, T, id, "write")
    body = context.json()
    name = next(
        (
            name
            for name in repo.meta["requests"]
            if body.get("user") == name or body.get("requestId") == _request_id(repo, name)
        ),
        None,
    )
    if name is None:
        raise ApiError(404, "No such access request")
    if body.get("status") not in STATUSES:
        raise ApiError(400, f"status is one of {', '.join(STATUSES)}")
    if repo.meta["requests"][name]["status"] == body["status"]:
        raise ApiError(404, f"The access request is already {body['status']}")
    _set(repo, name, body["status"])
    return json_response({})


@route("POST", "/api/{T}/{id}/user-access-request/grant")
def grant(context, T, id):
    """Access for somebody who did not ask."""
    repo = _gated(context, T, id, "write")
    name = context.json().get("user")
    if not any(account.name == name for account in ACCOUNTS):
        raise ApiError(404, f"User {name} does not exist")
    if repo.meta["requests"].get(name, {}).get("status") == "accepted":
        raise ApiError(400, f"{name} has access already")
    _set(repo, name, "accepted")
    return json_response({})
