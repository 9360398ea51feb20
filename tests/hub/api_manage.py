"""Repositories as such: create, delete, move, settings, duplicate, and who may do what."""

import base64
import binascii

import attributes
import paths
import store
from errors import ApiError
from gitrepo import REGULAR, Entry, TreeEditor
from http_engine import json_response
from pointers import find_pointers
from routes import route
from store import ORGANIZATIONS

VISIBILITIES = {"public", "private", "protected"}
MAX_FIRST_FILES, MAX_COPIES = 1000, 500
SDKS = ("gradio", "streamlit", "docker", "static")


def _namespace(context, name):
    """The spelling of a namespace; 403 unless the account may write there."""
    account = context.user()
    if not account.writes(name):
        raise ApiError(403, f'You don\'t have the rights to do this under the namespace "{name}"')
    return next(known for known in (account.name, *ORGANIZATIONS) if known == name.lower())


def _kind(body):
    kind = body.get("type") or "model"
    if not isinstance(kind, str) or kind not in store.PLURALS:
        raise ApiError(400, f'Invalid type "{kind}": expected one of {", ".join(store.PLURALS)}')
    return kind


def _checked_id(repo_id):
    """(namespace, name) of an id; 400 if it breaks the Hub's rules."""
    parts = str(repo_id).split("/")
    if len(parts) != 2 or not all(map(store.valid_name, parts)):
        raise ApiError(400, f'Invalid repository id "{repo_id}"')
    return parts


def _named(context, body):
    """(type, id) of a body with name, organization and type, as the client spelled the id."""
    name = str(body.get("name") or "")
    if "/" not in name:
        name = f"{body.get('organization') or context.user().name}/{name}"
    _checked_id(name)
    return _kind(body), name


def _new_id(context, repo_id):
    """An id for a repository that comes into a namespace where the account may write."""
    namespace, name = _checked_id(repo_id)
    return f"{_namespace(context, namespace)}/{name}"


def _visibility(kind, body):
    """The flags that `visibility`, or the older `private`, stand for."""
    visibility = body.get("visibility") or ("private" if body.get("private") else "public")
    if (
        not isinstance(visibility, str)
        or visibility not in VISIBILITIES
        or (visibility == "protected" and kind != "space")
    ):
        raise ApiError(400, f'Invalid visibility "{visibility}" for a {kind}')
    return {"private": visibility != "public", "protected": visibility == "protected"}


def _url(context, repo):
    return f"{context.endpoint}/{repo.prefix}{repo.id}"


def _make(context, kind, repo_id, fill, **settings):
    """A new repository; a 409 tells the address of the one that has its id."""
    if not context.store.find(kind, repo_id):
        context.quotas.action(context.account, "create")
    try:
        return context.store.create(kind, repo_id, fill, **settings)
    except ApiError as error:
        existing = context.store.find(kind, repo_id)
        if existing:
            error.body["url"] = _url(context, existing)
        raise


# Create


@route("POST", "/api/repos/create")
def create(context):
    context.user()
    body = context.json()
    kind, repo_id = _named(context, body)
    repo_id = _new_id(context, repo_id)
    if kind == "space" and body.get("sdk") not in SDKS:
        raise ApiError(400, "Invalid sdk: a space needs gradio, streamlit, docker or static")
    files = _first_files(context, kind, body)

    def fill(repo):
        entries = TreeEditor(repo.git, None)
        for path, content in files.items():
            entries.put(path, Entry(REGULAR, repo.git.write_blob(content)))
        first = repo.git.write_commit(entries.write(), [], context.account.name, "initial commit", "")
        repo.git.update_ref("refs/heads/main", first)

    repo = _make(context, kind, repo_id, fill, **_visibility(kind, body), sdk=body.get("sdk"))
    return json_response({"url": _url(context, repo), "name": repo.id, "id": repo.uid})


def _first_files(context, kind, body):
    """{path: content} of the first commit: .gitattributes, a README.md if there is something to say, and what
    the request brings."""
    files = {".gitattributes": attributes.default_attributes(kind).encode()}
    facts = [f"license: {body['license']}"] if body.get("license") else []
    if kind == "space" and context.config.space_readme == "written":
        facts += [f"title: {body.get('name')}", f"sdk: {body['sdk']}"]
    if facts:
        files["README.md"] = "".join(line + "\n" for line in ("---", *facts, "---")).encode(
            "utf-8", "replace"
        )
    for item in context.items(body, "files", 0, MAX_FIRST_FILES) if body.get("files") else []:
        path, content = item.get("path"), item.get("content")
        problem = paths.problem(path)
        if problem or not isinstance(content, str):
            raise ApiError(400, f"Invalid files: {problem or 'content is a text'}")
        try:
            files[path] = (
                base64.b64decode(content, validate=True)
                if item.get("encoding") == "base64"
                else content.encode("utf-8", "surrogatepass")
            )
        except binascii.Error:
            raise ApiError(400, f"The content of {path} is not base64") from None
    return files


# Delete, move, settings


@route("DELETE", "/api/repos/delete")
def delete(context):
    context.user()
    kind, repo_id = _named(context, context.json())
    context.store.delete(context.repo(kind, repo_id, "write"))
    return json_response({})


@route("POST", "/api/repos/move")
def move(context):
    context.user()
    body = context.json()
    kind = _kind(body)
    repo = context.repo(kind, "/".join(_checked_id(body.get("fromRepo"))), "write")
    repo_id = _new_id(context, body.get("toRepo"))
    context.store.move(repo, repo_id)
    return json_response({"url": _url(context, repo)})


@route("PUT", "/api/{T}/{id}/settings")
def settings(context, T, id):
    repo = context.repo(T, id, "write")
    body = context.json()
    changes = _visibility(repo.type, body) if "visibility" in body or "private" in body else {}
    if "gated" in body:
        if body["gated"] not in (False, "auto", "manual"):
            raise ApiError(400, 'gated is false, "auto" or "manual"')
        changes["gated"] = body["gated"]
    if "discussionsDisabled" in body:
        if not isinstance(body["discussionsDisabled"], bool):
            raise ApiError(400, "discussionsDisabled is true or false")
        changes["discussionsDisabled"] = body["discussionsDisabled"]
    with repo.lock:
        repo.meta.update(changes)
        repo.save()
    return json_response(
        {
            "private": repo.private,
            "visibility": repo.visibility,
            "gated": repo.gated,
            "discussionsDisabled": repo.meta.get("discussionsDisabled", False),
        }
    )


@route("GET", "/api/{T}/{id}/auth-check")
def auth_check(context, T, id):
    context.repo(T, id, "bytes")
    return json_response({})


@route("GET", "/api/{T}/{id}/auth-check/write")
def auth_check_write(context, T, id):
    context.repo(T, id, "write")
    return json_response({})


# Duplicate


@route("POST", "/api/{T}/{id}/duplicate")
def duplicate(context, T, id):
    context.user()
    source = context.repo(T, id, "bytes")
    body = context.json()
    repo_id = _new_id(context, body.get("repository"))
    flags = (
        _visibility(source.type, body)
        if body.get("visibility")
        else {"private": source.private, "protected": source.protected}
    )

    repo = _make(
        context,
        source.type,
        repo_id,
        lambda repo: _copy(context, source, repo),
        **flags,
        sdk=source.meta.get("sdk"),
    )
    return json_response(
        {"url": _url(context, repo), "filesCopyPending": context.config.duplicate_files == "later"}
    )


def _copy(context, source, repo):
    """Fill a new repository with another one's main branch, and the LFS objects that it needs."""
    head = source.commit("main")
    keep = context.config.duplicate_history == "keep"
    repo.git.fetch(source.git, head.oid if keep else head.tree)
    first = (
        head.oid
        if keep
        else repo.git.write_commit(head.tree, [], context.account.name, f"Duplicate from {source.id}", "")
    )
    repo.git.update_ref("refs/heads/main", first)
    wanted = list(find_pointers(repo.git, {"main": first}))
    if context.config.duplicate_files == "later":
        context.store.late_copies.append((source, repo, wanted))
        return
    for oid in wanted:
        source.copy_lfs(repo, oid)


@route("POST", "/api/{T}/{id}/lfs-files/duplicate")
def duplicate_lfs_files(context, T, id):
    """LFS objects of one repository for commits to another, without their bytes going anywhere."""
    source = context.repo(T, id, "bytes")
    body = context.json()
    wanted, files = body.get("target"), context.items(body, "files", 1, MAX_COPIES)
    if not isinstance(wanted, dict):
        raise ApiError(400, '"target" is {type, name}')
    target = context.repo(_kind(wanted), "/".join(_checked_id(wanted.get("name"))), "write")
    failed = []
    for item in files:
        oid = str(item.get("sha256"))
        if not store.SHA256.match(oid) or not source.copy_lfs(target, oid):
            failed.append({"sha256": oid, "error": "The file does not exist in the source repository"})
    return json_response({"failed": failed})
