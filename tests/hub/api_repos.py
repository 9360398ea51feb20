"""What there is: lists and info of repositories."""

import frontmatter
from errors import ApiError
from http_engine import json_response
from routes import encode_cursor, route
from store import TYPES

EXPANDABLE = {
    "author",
    "cardData",
    "config",
    "createdAt",
    "disabled",
    "downloads",
    "gated",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "private",
    "sdk",
    "sha",
    "siblings",
    "tags",
    "usedStorage",
}
MAX_PAGE = 1000


@route("GET", "/api/{T}")
def list_repos(context, T):
    expand = context.expand()
    _check_expand(expand)
    if expand and context.flag("full"):
        raise ApiError(400, "expand cannot be combined with full")
    found = _sorted(context, filter(_filter(context, TYPES[T]), list(context.store.repos.values())))
    after = context.cursor()
    start = sum(not _comes_after(place, after) for place, _ in found) if after else 0
    asked = context.number("limit")
    if asked and asked > MAX_PAGE and context.config.list_limit == "refuse":
        raise ApiError(400, f'"limit" must be at most {MAX_PAGE}')
    limit = context.config.page(asked, MAX_PAGE, MAX_PAGE)
    page, headers = found[start : start + limit], []
    if len(found) > start + limit:
        headers.append(context.next_link(cursor=encode_cursor(page[-1][0])))
    wanted = expand or ["createdAt", "private", "gated", "downloads", "likes", "tags"]
    if context.flag("full"):
        wanted += ["author", "sha", "lastModified", "siblings", "disabled"]
    return json_response(
        [_describe(repo, repo.resolve("main"), wanted, False) for _, repo in page], 200, headers
    )


def _filter(context, kind):
    """Whether a repository is asked for, and may be seen."""
    param = context.request.param
    author, search, gated = param("author", "").lower(), param("search", "").lower(), param("gated")
    tags = [value for name, value in context.request.params() if name in ("filter", "filter[]")]

    def wanted(repo):
        return (
            repo.type == kind
            and repo.readable(context.account)
            and author in ("", repo.namespace.lower())
            and search in repo.id.lower()
            and gated in (None, "true" if repo.gated else "false")
            and not tags
        )

    return wanted


SORT_KEYS = {
    "createdAt": lambda repo: repo.meta["createdAt"],
    "lastModified": lambda repo: repo.updated(),
    "downloads": lambda repo: 0,
    "likes": lambda repo: 0,
    "trendingScore": lambda repo: 0,
}


def _sorted(context, repos):
    """[(place, repository)], the greatest first and then by id. A place, [key, id], is what a cursor holds."""
    sort = context.request.param("sort")
    if sort is not None and sort not in SORT_KEYS:
        raise ApiError(400, f"Invalid sort {sort}: expected one of {', '.join(SORT_KEYS)}")
    key = SORT_KEYS[sort or "likes"]
    found = sorted((([key(repo), repo.id.lower()], repo) for repo in repos), key=lambda item: item[0][1])
    return sorted(found, key=lambda item: item[0][0], reverse=True)


def _comes_after(place, after):
    return place[0] < after[0] or (place[0] == after[0] and place[1] > after[1])


@route("GET", "/api/{T}/{id}")
def info(context, T, id):
    return revision_info(context, T, id, "main")


@route("GET", "/api/{T}/{id}/revision/{rev}")
def revision_info(context, T, id, rev):
    repo = context.repo(T, id)
    commit = repo.commit(rev)
    expand, blobs = context.expand(), context.flag("blobs")
    _check_expand(expand)
    if expand and blobs:
        raise ApiError(400, "expand cannot be combined with blobs")
    wanted = expand or sorted(EXPANDABLE - {"cardData", "config", "library_name", "pipeline_tag"})
    described = _describe(repo, commit, wanted, blobs)
    if rev == "main" and repo.meta.get("stale_head") and "sha" in described:
        described["sha"] = repo.meta["stale_head"]
    return json_response(described)


def _check_expand(expand):
    unknown = sorted(set(expand) - EXPANDABLE)
    if unknown:
        raise ApiError(
            400, f"Invalid expand value {unknown[0]}: expected one of {', '.join(sorted(EXPANDABLE))}"
        )


def _describe(repo, commit, wanted, blobs):
    """The JSON object of a repository at a commit with the wanted properties."""
    values = {
        "author": lambda: repo.namespace,
        "createdAt": lambda: repo.meta["createdAt"],
        "disabled": lambda: repo.meta["disabled"],
        "downloads": lambda: 0,
        "gated": lambda: repo.gated,
        "lastModified": repo.updated,
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
        return [
            {"rfilename": path}
            for path, entry in repo.git.listing(commit.tree, True)
            if entry.mode != "40000"
        ]
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
    body = context.json()
    if not isinstance(body.get("content"), str):
        raise ApiError(400, '"content" is required')
    errors, warnings = frontmatter.judge(body["content"], str(body.get("repoType") or "model"))
    return json_response({"warnings": [{"message": text} for text in warnings],
                          "errors": [{"message": text} for text in errors]}, 400 if errors else 200)
