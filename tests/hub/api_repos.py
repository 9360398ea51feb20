"""Accounts, namespaces and repositories: whoami, overviews, create, delete, settings, lists and info."""

import frontmatter
import store
from errors import ApiError, revision_not_found
from gitrepo import iso_date
from http_engine import json_response
from routes import encode_cursor, route
from store import ACCOUNTS, ORGANIZATIONS, TYPES

EXPANDABLE = {
    "author", "cardData", "config", "createdAt", "disabled", "downloads", "gated", "lastModified", "library_name",
    "likes", "pipeline_tag", "private", "sdk", "sha", "siblings", "tags", "usedStorage",
}


@route("GET", "/api/whoami-v2")
def whoami(context):
    account = context.user()
    organizations = [{"type": "org", "id": f"{number:024x}", "name": name, "fullname": name, "isEnterprise": False,
                      "roleInOrg": account.role} for number, name in enumerate(account.organizations, 1)]
    return json_response({
        "type": "user", "id": account.id, "name": account.name, "fullname": account.name.capitalize(),
        "email": f"{account.name}@example.org", "emailVerified": True, "isPro": False, "canPay": False,
        "periodEnd": None, "avatarUrl": f"/avatars/{account.id}.svg", "billingMode": "prepaid", "orgs": organizations,
        "auth": {"type": "access_token", "accessToken": {"displayName": account.name, "role": account.role}},
    })


def _counts(context, name):
    kinds = [repo.type for repo in list(context.store.repos.values())
             if repo.namespace.lower() == name.lower() and repo.readable(context.account)]
    return {"numModels": kinds.count("model"), "numDatasets": kinds.count("dataset"), "numSpaces": kinds.count("space")}


@route("GET", "/api/users/{name}/overview")
def user_overview(context, name):
    for account in ACCOUNTS:
        if account.name == name.lower():
            return json_response({"user": account.name, "fullname": account.name.capitalize(), "type": "user",
                                  "avatarUrl": f"/avatars/{account.id}.svg", "isPro": False,
                                  **_counts(context, name)})
    raise ApiError(404, "This user does not exist")


@route("GET", "/api/organizations/{name}/overview")
def organization_overview(context, name):
    if name.lower() not in ORGANIZATIONS:
        raise ApiError(404, "This organization does not exist")
    return json_response({"name": name.lower(), "fullname": name.lower(), "type": "org",
                          "avatarUrl": f"/avatars/{name.lower()}.svg", **_counts(context, name)})


# Repositories as such

def _named(context, body):
    """(type, id) of a body with name, organization and type; the namespace must be writable."""
    account = context.user()
    name, namespace = str(body.get("name") or ""), body.get("organization") or account.name
    if "/" in name:
        namespace, _, name = name.partition("/")
    kind = body.get("type") or "model"
    if kind not in store.PLURALS or not store.valid_name(name) or not store.valid_name(namespace):
        raise ApiError(400, f"Invalid repository {kind} {namespace}/{name}")
    if not account.writes(namespace):
        raise ApiError(403, f'You don\'t have the rights to do this under the namespace "{namespace}"')
    return kind, f"{namespace}/{name}"


@route("POST", "/api/repos/create")
def create(context):
    body = context.json()
    kind, repo_id = _named(context, body)
    if kind == "space" and body.get("sdk") not in ("gradio", "streamlit", "docker", "static"):
        raise ApiError(400, "Invalid sdk: a space needs gradio, streamlit, docker or static")
    private = body.get("visibility") == "private" or bool(body.get("private"))
    existing = context.store.find(kind, repo_id)
    if not existing:
        context.quotas.action(context.account, "create")
    try:
        repo = context.store.create(kind, repo_id, context.account.name, private=private, sdk=body.get("sdk"))
    except ApiError as error:
        existing = existing or context.store.find(kind, repo_id)
        error.body["url"] = _url(context, existing)
        raise
    return json_response({"url": _url(context, repo), "name": repo.id, "id": repo.uid})


def _url(context, repo):
    return f"{context.endpoint}/{repo.prefix}{repo.id}"


@route("DELETE", "/api/repos/delete")
def delete(context):
    kind, repo_id = _named(context, context.json())
    context.store.delete(context.repo(kind, repo_id, "write"))
    return json_response({})


@route("PUT", "/api/{T}/{id}/settings")
def settings(context, T, id):
    repo = context.repo(T, id, "write")
    body = context.json()
    changes = {}
    if "visibility" in body or "private" in body:
        changes["private"] = body.get("visibility") == "private" or bool(body.get("private"))
    if "gated" in body:
        if body["gated"] not in (False, "auto", "manual"):
            raise ApiError(400, 'gated is false, "auto" or "manual"')
        changes["gated"] = body["gated"]
    with repo.lock:
        repo.meta.update(changes)
        repo.save()
    return json_response({"private": repo.private, "gated": repo.gated})


@route("GET", "/api/{T}/{id}/auth-check")
def auth_check(context, T, id):
    context.repo(T, id, "bytes")
    return json_response({})


@route("GET", "/api/{T}/{id}/auth-check/write")
def auth_check_write(context, T, id):
    context.repo(T, id, "write")
    return json_response({})


# Lists and info

@route("GET", "/api/{T}")
def list_repos(context, T):
    request, expand = context.request, context.expand()
    _check_expand(expand)
    author = request.param("author", "").lower()
    search = request.param("search", "").lower()
    found = sorted((repo for repo in list(context.store.repos.values())
                    if repo.type == TYPES[T] and repo.readable(context.account)
                    and author in ("", repo.namespace.lower()) and search in repo.id.lower()),
                   key=lambda repo: repo.id.lower())
    after = context.cursor() or ""
    rest = [repo for repo in found if repo.id.lower() > after]
    limit = context.config.page(context.number("limit"), 1000, 1000)
    page, headers = rest[:limit], []
    if len(rest) > limit:
        headers.append(context.next_link(cursor=encode_cursor(page[-1].id.lower())))
    wanted = expand or ["createdAt", "private", "gated", "downloads", "likes", "tags"]
    if context.flag("full"):
        wanted += ["author", "sha", "lastModified", "siblings", "disabled"]
    return json_response([_describe(repo, repo.resolve("main"), wanted, False) for repo in page], 200, headers)


@route("GET", "/api/{T}/{id}")
def info(context, T, id):
    return revision_info(context, T, id, "main")


@route("GET", "/api/{T}/{id}/revision/{rev}")
def revision_info(context, T, id, rev):
    repo = context.repo(T, id)
    commit = repo.resolve(rev)
    if commit is None:
        raise revision_not_found(rev)
    expand, blobs = context.expand(), context.flag("blobs")
    _check_expand(expand)
    if expand and blobs:
        raise ApiError(400, "expand cannot be combined with blobs")
    wanted = expand or sorted(EXPANDABLE - {"cardData", "config", "library_name", "pipeline_tag"})
    return json_response(_describe(repo, commit, wanted, blobs))


def _check_expand(expand):
    unknown = sorted(set(expand) - EXPANDABLE)
    if unknown:
        raise ApiError(400, f"Invalid expand value {unknown[0]}: expected one of {', '.join(sorted(EXPANDABLE))}")


def _describe(repo, commit, wanted, blobs):
    """The JSON object of a repository at a commit with the wanted properties."""
    values = {
        "author": lambda: repo.namespace,
        "createdAt": lambda: repo.meta["createdAt"],
        "disabled": lambda: repo.meta["disabled"],
        "downloads": lambda: 0,
        "gated": lambda: repo.gated,
        "lastModified": lambda: iso_date((repo.resolve("main") or commit).time),
        "likes": lambda: 0,
        "private": lambda: repo.private,
        "sdk": lambda: repo.meta.get("sdk"),
        "sha": lambda: commit.oid,
        "siblings": lambda: _siblings(repo, commit, blobs),
        "tags": list,
        "usedStorage": lambda: sum(_sizes(repo, commit)),
    }
    described = {"_id": repo.uid, "id": repo.id}
    if repo.type == "model":
        described["modelId"] = repo.id
    for name in wanted:
        value = values[name]() if name in values else None
        if value is not None:
            described[name] = value
    return described


def _files(repo, commit):
    for path, entry in repo.git.listing(commit.tree, True):
        if entry.mode not in ("40000", "160000"):
            yield path, entry, repo.git.blob(entry.oid)


def _sizes(repo, commit):
    return (blob.lfs.size if blob.lfs else blob.size for _, _, blob in _files(repo, commit))


def _siblings(repo, commit, blobs):
    if not blobs:
        return [{"rfilename": path} for path, entry in repo.git.listing(commit.tree, True) if entry.mode != "40000"]
    siblings = []
    for path, entry, blob in _files(repo, commit):
        item = {"rfilename": path, "size": blob.size, "blobId": entry.oid}
        if blob.lfs:
            item["size"] = blob.lfs.size
            item["lfs"] = {"sha256": blob.lfs.oid, "size": blob.lfs.size, "pointerSize": blob.size}
        siblings.append(item)
    return siblings


@route("POST", "/api/validate-yaml")
def validate_yaml(context):
    problems = frontmatter.check(str(context.json().get("content", "")))
    if problems:
        return json_response({"warnings": [], "errors": [{"message": text} for text in problems]}, 400)
    return json_response({"warnings": [], "errors": []})
