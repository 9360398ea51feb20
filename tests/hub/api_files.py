"""Reading: tree, paths-info, treesize, resolve, resolve-cache and raw."""

import hashlib
import posixpath
import urllib.parse

from data_origin import download_url
from errors import ApiError, entry_not_found, revision_not_found
from gitrepo import DIRECTORY, SUBMODULE, SYMLINK, iso_date
from http_engine import Response, json_response
from ranges import content_response, matches_etag
from routes import encode_cursor, route

MAX_FORM_PATHS = 1000
MAX_JSON_PATHS = 2000


def describe_entry(repo, path, entry):
    """The JSON object of one path of a tree."""
    if entry.mode == DIRECTORY:
        return {"type": "directory", "oid": entry.oid, "size": 0, "path": path}
    if entry.mode == SUBMODULE or (entry.mode == SYMLINK and repo.store.config.symlink_type == "unknown"):
        return {"type": "unknown", "oid": entry.oid, "size": 0, "path": path}
    blob = repo.git.blob(entry.oid)
    item = {"type": "file", "oid": entry.oid, "size": blob.size, "path": path}
    if blob.lfs:
        item["size"] = blob.lfs.size
        item["lfs"] = {"oid": blob.lfs.oid, "size": blob.lfs.size, "pointerSize": blob.size}
        if repo.store.config.xet_hash == "listed":
            item["xetHash"] = hashlib.sha256(f"xet {blob.lfs.oid}".encode()).hexdigest()
    return item


def describe_entries(repo, commit, found, expand):
    """JSON objects for [(path, Entry)]; with `expand`, each with its last commit."""
    items = [describe_entry(repo, path, entry) for path, entry in found]
    if expand:
        last = repo.git.last_commits(commit.oid, [path for path, _ in found])
        for item in items:
            changed = last[item["path"]]
            item["lastCommit"] = {"id": changed.oid, "title": changed.title, "date": iso_date(changed.time)}
            if item["type"] == "file":
                item["securityFileStatus"] = None
    return items


def _folder(repo, commit, path, rev):
    """The Entry of a folder; 404 EntryNotFound for anything else."""
    folder = repo.git.entry(commit.tree, path)
    if folder is None or folder.mode != DIRECTORY:
        raise entry_not_found(f'{path} does not exist on "{rev}"', commit.oid)
    return folder


@route("GET", "/api/{T}/{id}/tree/{rev}")
def tree_root(context, T, id, rev):
    return tree(context, T, id, rev, "")


@route("GET", "/api/{T}/{id}/tree/{rev}/{path*}")
def tree(context, T, id, rev, path):
    repo = context.repo(T, id)
    expand = context.flag("expand")
    offset, pinned = context.cursor() or (0, None)  # the pages of one listing are of one commit
    commit = repo.commit(pinned or rev)
    path = path.rstrip("/")
    folder = _folder(repo, commit, path, rev)
    listing = repo.git.listing(folder.oid, context.flag("recursive"))
    most, limit = 100 if expand else 1000, context.number("limit")
    if limit and limit > most and context.config.tree_limit == "refuse":
        raise ApiError(400, f'"limit" must be at most {most}')
    size = context.config.page(limit, most, most)
    prefix = path + "/" if path else ""
    page = [(prefix + name, entry) for name, entry in listing[offset : offset + size]]
    headers = [("X-Repo-Commit", commit.oid)]
    if offset + size < len(listing):
        headers.append(context.next_link(cursor=encode_cursor([offset + size, commit.oid])))
    return json_response(describe_entries(repo, commit, page, expand), 200, headers)


@route("POST", "/api/{T}/{id}/paths-info/{rev}")
def paths_info(context, T, id, rev):
    repo = context.repo(T, id)
    commit = repo.commit(rev)
    paths, expand = _wanted_paths(context)
    found = []
    for path in dict.fromkeys(paths):
        entry = repo.git.entry(commit.tree, path)
        if entry and (path or context.config.root_info == "describe"):
            found.append((path, entry))
    return json_response(describe_entries(repo, commit, found, expand))


def _wanted_paths(context):
    """(paths, expand) of a form or JSON body."""
    if "json" in context.request.headers.get("content-type", ""):
        body = context.json()
        paths = body.get("paths")
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(body.get("expand"), bool):
            raise ApiError(400, '"expand" is required')
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ApiError(400, '"paths" must be a string or an array of strings')
        if len(paths) > MAX_JSON_PATHS:
            raise ApiError(400, f'"paths" must contain at most {MAX_JSON_PATHS} items')
        return paths, body["expand"]
    text = context.request.stream.read().decode("utf-8", "replace")
    fields = urllib.parse.parse_qsl(text, keep_blank_values=True)
    if len(fields) > MAX_FORM_PATHS:
        raise ApiError(413, "too many parameters")
    return ([value for name, value in fields if name in ("paths", "paths[]")],
            dict(fields).get("expand", "false").lower() == "true")


@route("GET", "/api/{T}/{id}/treesize/{rev}")
def treesize_root(context, T, id, rev):
    return treesize(context, T, id, rev, "")


@route("GET", "/api/{T}/{id}/treesize/{rev}/{path*}")
def treesize(context, T, id, rev, path):
    repo = context.repo(T, id)
    commit = repo.commit(rev)
    folder = _folder(repo, commit, path.rstrip("/"), rev)
    sizes = (describe_entry(repo, name, entry)["size"] for name, entry in repo.git.listing(folder.oid, True))
    return json_response({"path": "/" + path, context.config.treesize_key: sum(sizes)})


# Bytes

def _file(repo, commit, path):
    """(Entry, Blob) of a file; 404 EntryNotFound for anything else."""
    entry = repo.git.entry(commit.tree, path)
    if entry is not None and entry.mode == DIRECTORY and repo.store.config.folder_resolve_status == 400:
        raise ApiError(400, f"{path} is a folder", headers=[("X-Repo-Commit", commit.oid)])
    if entry is None or entry.mode in (DIRECTORY, SUBMODULE):
        raise entry_not_found("Entry not found", commit.oid)
    return entry, repo.git.blob(entry.oid)


def _headers(context, commit, path):
    headers = [("X-Repo-Commit", commit.oid), ("Vary", "Origin, Accept"),
               ("Access-Control-Expose-Headers", "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,"
                "X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag"),
               ("Set-Cookie", "token=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly")]
    if context.request.param("noContentDisposition") != "1":
        name = urllib.parse.quote(posixpath.basename(path))
        headers.append(("Content-Disposition", f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"))
    return headers


def _redirect_to_storage(context, repo, path, blob, headers):
    etag = f'"{blob.lfs.oid}"'
    headers = [*headers, ("ETag", etag), ("X-Linked-ETag", etag), ("X-Linked-Size", str(blob.lfs.size)),
               ("Accept-Ranges", "bytes")]
    if matches_etag(context.request, etag):
        return Response(304, b"", headers)
    url = download_url(context.signer, repo, blob.lfs.oid, posixpath.basename(path))
    return Response(302, f"Found. Redirecting to {url}".encode(),
                    [*headers, ("Content-Type", "text/plain; charset=utf-8"), ("Location", url)])


def _serve_blob(context, repo, entry, headers):
    content = repo.git.content(entry.oid)
    kind = "text/plain; charset=utf-8" if b"\0" not in content[:512] else "application/octet-stream"
    return content_response(context.request, content, len(content), f'"{entry.oid}"',
                            [*headers, ("Content-Type", kind)])


@route("GET", "/{pre}{id}/resolve/{rev}/{path*}")
def resolve(context, pre, id, rev, path):
    repo = context.repo(pre, id, "bytes")
    commit = repo.commit(rev)
    entry, blob = _file(repo, commit, path)
    headers = _headers(context, commit, path)
    if blob.lfs:
        return _redirect_to_storage(context, repo, path, blob, headers)
    etag = f'"{entry.oid}"'
    if repo.private or repo.gated or blob.size == 0 or context.one_word:
        return _serve_blob(context, repo, entry, headers)
    if matches_etag(context.request, etag):
        return Response(304, b"", [*headers, ("ETag", etag)])
    quoted = urllib.parse.quote(path)
    odd = urllib.parse.quote(f"/{repo.prefix}{repo.id}/resolve/{rev}/{path}", safe="")
    where = (f"/api/resolve-cache/{repo.plural}/{repo.id}/{commit.oid}/{quoted}"
             f"?{odd}=&etag={urllib.parse.quote(etag, safe='')}")
    return Response(307, f"Temporary Redirect. Redirecting to {where}".encode(),
                    [*headers, ("ETag", etag), ("Accept-Ranges", "bytes"), ("Location", where),
                     ("Content-Type", "text/plain; charset=utf-8")])


@route("GET", "/api/resolve-cache/{T}/{id}/{sha}/{path*}")
def resolve_cache(context, T, id, sha, path):
    repo = context.repo(T, id, "bytes")
    if repo.private and context.config.private_resolve_cache == "refuse":
        raise ApiError(403, "Files of a private repository are not in the cache")
    if len(sha) != 40:
        raise revision_not_found(sha)
    commit = repo.commit(sha)
    entry, blob = _file(repo, commit, path)
    headers = _headers(context, commit, path)
    if blob.lfs:
        return _redirect_to_storage(context, repo, path, blob, headers)
    headers.append(("Cache-Control", "public, max-age=604800"))
    return _serve_blob(context, repo, entry, headers)


@route("GET", "/{pre}{id}/raw/{rev}/{path*}")
def raw(context, pre, id, rev, path):
    repo = context.repo(pre, id, "bytes")
    commit = repo.commit(rev)
    entry, _ = _file(repo, commit, path)
    content = repo.git.content(entry.oid)
    headers = [*_headers(context, commit, path), ("Content-Type", "text/plain; charset=utf-8")]
    return content_response(context.request, content, len(content), f'"{entry.oid}"', headers, conditional=False)
