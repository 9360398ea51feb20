"""Refs, commits, branches and tags."""

import html
import itertools

from errors import ApiError, revision_not_found
from gitrepo import RefConflict, iso_date
from http_engine import Response, json_response
from routes import route


def ref_item(repo, ref, name, oid):
    return {"name": name, "ref": ref, "targetCommit": repo.git.commit(oid).oid}


@route("GET", "/api/{T}/{id}/refs")
def refs(context, T, id):
    repo = context.repo(T, id)
    found = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    kinds = {
        "refs/heads/": "branches",
        "refs/convert/": "converts",
        "refs/tags/": "tags",
        "refs/pr/": "pullRequests",
    }
    for ref, oid in repo.git.refs().items():
        for prefix, kind in kinds.items():
            if ref.startswith(prefix) and repo.seen(ref):
                found[kind].append(ref_item(repo, ref, ref.removeprefix(prefix), oid))
    if not context.flag("include_prs"):
        del found["pullRequests"]
    return json_response(found)


@route("GET", "/api/{T}/{id}/commits/{rev}")
def commits(context, T, id, rev):
    repo = context.repo(T, id)
    history = list(repo.git.history(repo.commit(rev).oid))
    limit = context.config.page(context.number("limit"), 50, 1000)
    first = context.config.commits_first_page
    page = max(0, context.number("p", first) - first)
    formatted = "formatted" in context.expand()
    items = []
    for commit in itertools.islice(history, page * limit, (page + 1) * limit):
        item = {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": iso_date(commit.time),
            "authors": [{"user": commit.author}],
        }
        if formatted:
            item["formatted"] = {"title": html.escape(commit.title), "message": html.escape(commit.message)}
        items.append(item)
    headers = [("X-Total-Count", str(len(history)))]
    if len(history) > (page + 1) * limit:
        headers.append(context.next_link(p=page + 1 + first))
    return json_response(items, 200, headers)


@route("GET", "/api/{T}/{id}/compare/{compare}")
def compare(context, T, id, compare):
    """What changed from `a` to `b`, as text."""
    repo = context.repo(T, id)
    old, dots, new = compare.partition("..")
    if not dots:
        raise ApiError(400, "Compare two revisions: a..b")
    ends = [repo.commit(revision).oid for revision in (old, new)]
    raw = context.flag("raw") and context.config.compare_raw == "raw"
    form = ["--raw", "--no-abbrev"] if raw else ["--patch", "--full-index"]
    text = repo.git.run("-c", "core.quotePath=false", "diff", "--no-renames", "--no-color", *form, *ends)
    return Response(200, text, [("Content-Type", "text/plain; charset=utf-8")])


@route("POST", "/api/{T}/{id}/branch/{branch*}")
def create_branch(context, T, id, branch):
    repo = context.repo(T, id, "write")
    body = context.json()
    if branch.startswith("refs/") or branch == "HEAD":
        raise ApiError(400, "Invalid reference for a branch")
    name = f"refs/heads/{branch}"
    with repo.lock:
        old = repo.git.ref(name)
        if old and not body.get("overwrite"):
            raise ApiError(409, f"Reference {name} already exists")
        if body.get("emptyBranch"):
            target = repo.git.write_commit(
                repo.git.write_tree({}), [], context.account.name, "initial commit", ""
            )
        else:
            target = repo.commit(str(body.get("startingPoint") or "main")).oid
        _make_ref(repo, "branch", name, target, old)
    return json_response({})


def _make_ref(repo, kind, name, target, old=None):
    """Make a ref, or move it from `old`; 400 for a name that git does not allow."""
    try:
        repo.git.update_ref(name, target, old)
    except RefConflict as conflict:
        raise ApiError(400, f"Invalid reference for a {kind}: {conflict}") from None
    repo.hide_new(name)


def _delete_ref(repo, name, revision):
    with repo.lock:
        old = repo.git.ref(name)
        if not old:
            raise revision_not_found(revision)
        repo.git.delete_ref(name, old)
    return json_response({})


@route("DELETE", "/api/{T}/{id}/branch/{branch*}")
def delete_branch(context, T, id, branch):
    repo = context.repo(T, id, "write")
    name = f"refs/heads/{branch}"
    if branch == "main":
        raise ApiError(403, f"Cannot delete {name}")
    return _delete_ref(repo, name, branch)


@route("POST", "/api/{T}/{id}/tag/{rev}")
def create_tag(context, T, id, rev):
    repo = context.repo(T, id, "write")
    body = context.json()
    commit = repo.commit(rev, short=True)
    tag = str(body.get("tag") or "")
    name = f"refs/tags/{tag}"
    with repo.lock:
        if repo.git.ref(name):
            raise ApiError(409, f"Tag reference {name} already exists")
        target = commit.oid
        if body.get("message") and context.config.tag_message == "annotated":
            target = repo.git.write_tag(tag, commit.oid, context.account.name, str(body["message"]))
        _make_ref(repo, "tag", name, target)
    return json_response({})


@route("DELETE", "/api/{T}/{id}/tag/{tag}")
def delete_tag(context, T, id, tag):
    repo = context.repo(T, id, "write")
    return _delete_ref(repo, f"refs/tags/{tag}", tag)
