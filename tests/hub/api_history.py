"""What changes history: super-squash, and LFS objects listed and deleted for ever."""

import os

from errors import ApiError, revision_not_found
from gitrepo import RefConflict, iso_date
from http_engine import json_response
from pointers import find_pointers
from rewrite import forget_blobs
from routes import encode_cursor, route

MAX_DELETIONS = 1000


@route("POST", "/api/{T}/{id}/super-squash/{rev}")
def super_squash(context, T, id, rev):
    """One commit instead of all, with the same files."""
    repo = context.repo(T, id, "write")
    message = context.json().get("message") or f"Super-squash branch '{rev}'"
    if not isinstance(message, str) or len(message) > 500:
        raise ApiError(400, '"message" must have at most 500 characters')
    title, _, rest = message.strip().partition("\n")
    with repo.lock:
        head, ref = repo.resolve(rev), repo.writable_ref(rev)
        if head is None:
            raise revision_not_found(rev)
        if ref is None:
            raise ApiError(400, f'"{rev}" is not a branch: only branches and pull requests can be squashed')
        head = repo.git.commit(repo.git.ref(ref))
        made = repo.git.write_commit(head.tree, [], context.account.name, title, rest.strip("\n"))
        try:
            repo.git.update_ref(ref, made, head.oid)
        except RefConflict:
            raise ApiError(409, f"The branch {rev} was updated. Please try again.") from None
    return json_response({"commitId": made})


# LFS objects


def _found(repo):
    """{LFS oid: Found} of all refs, the main branch first."""
    refs = repo.git.refs()
    names = sorted(refs, key=lambda ref: (ref != "refs/heads/main", ref))
    return find_pointers(repo.git, {ref: repo.git.commit(refs[ref]).oid for ref in names})


@route("GET", "/api/{T}/{id}/lfs-files")
def list_lfs_files(context, T, id):
    """Every object that is stored and that some commit names; `xet=true` finds none."""
    repo = context.repo(T, id, "write")
    found = {} if context.flag("xet") else _found(repo)
    after = context.cursor() or ""
    rest = sorted(oid for oid in found if oid > after and repo.lfs_size(oid) is not None)
    limit = context.config.page(context.number("limit"), 1000, 1000)
    headers = [context.next_link(cursor=encode_cursor(rest[limit - 1]))] if len(rest) > limit else []
    items = [
        {
            "fileOid": found[oid].blob,
            "oid": oid,
            "filename": found[oid].path,
            "size": repo.lfs_size(oid),
            "pushedAt": iso_date(found[oid].commit.time),
            "ref": found[oid].ref,
        }
        for oid in rest[:limit]
    ]
    return json_response(items, 200, headers)


@route("POST", "/api/{T}/{id}/lfs-files/batch")
def delete_lfs_files(context, T, id):
    repo = context.repo(T, id, "write")
    deletions = context.json().get("deletions")
    shas = deletions.get("sha") if isinstance(deletions, dict) else None
    rewrite = deletions.get("rewriteHistory", True) if isinstance(deletions, dict) else True
    if not isinstance(shas, list) or not 0 < len(shas) <= MAX_DELETIONS or not isinstance(rewrite, bool):
        raise ApiError(400, f"deletions is {{sha: 1 to {MAX_DELETIONS} ids, rewriteHistory: true or false}}")
    _delete(repo, shas, rewrite)
    return json_response({"success": True})


@route("DELETE", "/api/{T}/{id}/lfs-files/{sha}")
def delete_lfs_file(context, T, id, sha):
    repo = context.repo(T, id, "write")
    _delete(repo, [sha], context.request.param("rewriteHistory", "true") == "true")
    return json_response({"success": True})


def _delete(repo, shas, rewrite):
    """Delete objects, named by the `fileOid` of the list or by their SHA-256; 404 for what is not there."""
    with repo.lock:
        found = _found(repo)
        names = {name: oid for oid, item in found.items() for name in (oid, item.blob)}
        missing = [sha for sha in shas if sha not in names or repo.lfs_size(names[sha]) is None]
        if missing:
            raise ApiError(404, f"No such file: {missing[0]}")
        oids = {names[sha] for sha in shas}
        if rewrite:
            forget_blobs(repo.git, [found[oid].blob for oid in oids])
        for oid in oids:
            os.unlink(repo.lfs_path(oid))
