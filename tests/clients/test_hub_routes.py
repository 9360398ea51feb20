"""The list of routes: each line of routes.txt is served."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

HUB = pathlib.Path(__file__).resolve().parent.parent / "hub"
PRINT_ROUTES = "import hub, routes\nfor method, pattern, *_ in routes.ROUTES: print(method, pattern)"


def listed():
    lines = [
        line for line in (HUB / "routes.txt").read_text().splitlines() if line and not line.startswith("#")
    ]
    return [re.fullmatch(r"([A-Z]+ \S+)  # \S.*", line)[1] for line in lines]


def test_every_listed_route_is_served():
    served = subprocess.run(
        [sys.executable, "-c", PRINT_ROUTES], cwd=HUB, check=True, text=True, stdout=subprocess.PIPE
    ).stdout.splitlines()
    assert len(listed()) == len(set(listed())) > 20
    assert [line for line in listed() if line not in served] == []


def test_routes_of_others_are_not_served(hub, repo):
    for target in (
        "/api/agent-harnesses",
        f"{hub.api(repo)}/xet-read-token/main",
        f"{hub.api(repo)}/xet-write-token/None",
    ):
        answer = hub.request("GET", target)
        assert answer.status == 404 and isinstance(answer.json()["error"], str)


VALUES = [None, True, -1, "", "x" * 70_000, [1], {"a": []}, "\x00", "\ud800"]
NAMES = [
    "name", "organization", "type", "visibility", "private", "gated", "discussionsDisabled", "sdk", "license", "files",
    "fromRepo", "toRepo", "repository", "target", "title", "description", "pullRequest", "comment", "content", "status",
    "message", "startingPoint", "overwrite", "emptyBranch", "tag", "deletions", "user", "requestId", "repoType", "paths",
    "expand", "operation", "objects", "transfers", "hash_algo", "ref", "oid", "size", "parts", "gitIgnore", "gitAttributes",
]


@pytest.mark.parametrize(
    "route", [line for line in listed() if not line.startswith("GET ") and "-pack" not in line]
)
def test_nonsense_is_refused_and_never_breaks_the_server(hub, repo, new_id, route):
    """Each field with each kind of value, among right ones: a 4xx with a reason, or it is done."""
    method, pattern = route.split(" ")
    hub.set_repo(repo, gated="manual")
    hub.request("POST", f"{hub.api(repo)}/discussions", {"title": "abc", "description": "d"})
    words = {
        "{T}": "models",
        "{id}": repo,
        "{id.git}": repo + ".git",
        "{pre}": "",
        "{rev}": "main",
        "{number}": "1",
    }
    target = re.sub(r"\{[^}]+\}", lambda match: words.get(match[0], "x"), pattern)
    right = {
        "name": repo,
        "fromRepo": repo,
        "toRepo": new_id,
        "repository": new_id,
        "title": "abc",
        "status": "closed",
    }
    bodies = [b"", b"null", b"[]", b"7", b'"text"', b"{", b"\xff\xfe", b"[" * 100_000]
    bodies += [json.dumps(right | {name: value}).encode() for name in NAMES for value in VALUES]
    for body in bodies:
        answer = hub.request(method, target, body, {"Content-Type": "application/json"})
        assert answer.status < 500, body[:200]
        if answer.status >= 400:
            assert isinstance(answer.json()["error"], str) and answer.headers["X-Error-Message"], body[:200]
