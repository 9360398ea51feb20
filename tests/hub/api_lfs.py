"""Uploading: preupload, the LFS batch, multipart completion and verification."""

import base64
import binascii
import hashlib
import json
import os
import shutil
import time
import uuid

import attributes
import discussions
import paths
from data_origin import download_url, object_path, part_path
from errors import ApiError, revision_not_found
from gitrepo import DIRECTORY, iso_date
from http_engine import CHUNK, json_response
from routes import route
from store import SHA256

MAX_FILES = 1000
MAX_PARTS = 100_000
STORAGE_TEXTS = {
    "private": "Private repository storage limit reached, please upgrade your plan to increase your private "
    "storage limit.",
    "public": "Your storage patterns tripped our internal systems! Please contact us so we can verify your "
    "account and unlock more storage for your use-case.",
}
LFS_TYPE = [("Content-Type", "application/vnd.git-lfs+json; charset=utf-8")]


def target_commit(context, repo, rev):
    """The commit that a write to `rev` starts from. A pull request starts from a branch; otherwise
    `rev` is a branch or a pull request."""
    if repo.resolve(rev) is None or (context.flag("create_pr") and not repo.git.ref(f"refs/heads/{rev}")):
        raise revision_not_found(rev)
    if repo.writable_ref(rev) is None:
        raise ApiError(
            context.config.read_only_status,
            f'"{rev}" is not a branch: commits are only possible on branches and pull requests',
        )
    return repo.git.commit(repo.git.ref(repo.writable_ref(rev)))


@route("POST", "/api/{T}/{id}/preupload/{rev}")
def preupload(context, T, id, rev):
    repo = context.repo(T, id, "propose" if context.flag("create_pr") else "metadata")
    if not context.flag("create_pr"):
        may_push(context, repo, rev)
    commit = target_commit(context, repo, rev) if context.flag("create_pr") else repo.commit(rev)
    body = context.json()
    files = context.items(body, "files", 0, MAX_FILES)
    stored = repo.reader(commit.tree)
    given = body.get("gitAttributes")
    rules = stored if not isinstance(given, str) else lambda path: given if path == ".gitattributes" else stored(path)
    ignore = body["gitIgnore"] if isinstance(body.get("gitIgnore"), str) else stored(".gitignore") or ""
    answers = [_judge(context, repo, commit, file, rules, ignore) for file in files]
    return json_response({"files": answers, "commitOid": commit.oid})


def may_push(context, repo, rev):
    """Refuse whoever may not write: members write everywhere, authors to their own pull requests, and nobody
    to one that has ended."""
    pull, account = discussions.pull_of(repo, rev), context.account
    if not (pull and account and account.writer and account.name == pull["author"]):
        context.repo(repo.type, repo.id, "write")
    discussions.may_commit(context.config, repo, rev)


def _judge(context, repo, commit, file, rules, ignore):
    """The answer for one file of a preupload."""
    path, size = file.get("path"), file.get("size")
    problem = paths.problem(path)
    if problem:
        raise ApiError(422, f"Invalid request: {problem}")
    try:
        sample = base64.b64decode(file.get("sample", ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ApiError(400, f"The sample of {path} is not base64") from None
    if not isinstance(size, int) or size < 0:
        raise ApiError(400, f"The size of {path} must be a number of bytes")
    answer = {
        "path": path,
        "uploadMode": _mode(context.config, path, size, sample, rules),
        "shouldIgnore": attributes.is_ignored(path, ignore),
    }
    entry = repo.git.entry(commit.tree, path)
    if entry and entry.mode != DIRECTORY:
        blob = repo.git.blob(entry.oid)
        answer["oid"] = blob.lfs.oid if blob.lfs else entry.oid
    return answer


def _mode(config, path, size, sample, rules):
    """`lfs` or `regular`: what .gitattributes says, else by size and the look of the first bytes."""
    tracked = attributes.filter_of(path, rules)
    if tracked is not None:
        return "lfs" if tracked == "lfs" else "regular"
    limit = config.lfs_binary_size if _is_binary(sample) else config.lfs_any_size
    return "lfs" if size > limit else "regular"


def _is_binary(sample):
    """NUL bytes or broken UTF-8; a character cut off at the end of the sample is fine."""
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3
    return False


# The LFS batch API


@route("POST", "/{pre}{id.git}/info/lfs/objects/batch")
def batch(context, pre, id):
    body = context.json()
    operation = body.get("operation")
    if operation not in ("upload", "download"):
        raise ApiError(422, "operation is upload or download")
    repo = context.repo(pre, id, "write" if operation == "upload" else "bytes")
    if body.get("hash_algo", "sha256") not in ("sha256", "sha_256"):
        raise ApiError(409, "hash_algo must be sha256")
    transfers, items = body.get("transfers") or ["basic"], body.get("objects") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ApiError(422, "objects must be an array of objects")
    if len(items) > context.config.batch_max_objects:
        raise ApiError(413, f"A batch may have {context.config.batch_max_objects} objects")
    full = operation == "upload" and _check_room(context, repo, items)
    objects = [_batch_object(context, repo, operation, transfers, item, full) for item in items]
    multipart = any(
        "chunk_size" in item.get("actions", {}).get("upload", {}).get("header", {}) for item in objects
    )
    return json_response(
        {"transfer": "multipart" if multipart else "basic", "objects": objects}, 200, LFS_TYPE
    )


def _check_room(context, repo, items):
    """Whether the namespace has no room for the new objects; 403 if that refuses the whole batch."""
    kind = "private" if repo.private else "public"
    quota = context.config.storage_quota[kind]
    if quota is None:
        return False
    new = {
        str(item.get("oid")): item["size"]
        for item in items
        if isinstance(item.get("size"), int)
        and SHA256.match(str(item.get("oid")))
        and repo.lfs_size(item["oid"]) is None
    }
    if not new or context.store.used_storage(repo.namespace, repo.private) + sum(new.values()) <= quota:
        return False
    if context.config.storage_refusal == "batch":
        raise ApiError(403, STORAGE_TEXTS[kind])
    return True


def _batch_object(context, repo, operation, transfers, item, full):
    oid, size = str(item.get("oid")), item.get("size")
    if not SHA256.match(oid) or not isinstance(size, int) or size < 0:
        return {
            "oid": oid,
            "size": size if isinstance(size, int) else 0,
            "error": {"code": 422, "message": "Invalid object: oid is a sha256 and size a number of bytes"},
        }
    answer = {"oid": oid, "size": size}
    stored = repo.lfs_size(oid)
    if operation == "download":
        if stored is None:
            return {**answer, "error": {"code": 404, "message": "Object does not exist on the server"}}
        actions = {"download": _action(context, download_url(context.signer, repo, oid))}
    elif stored == size:
        return answer
    elif full:
        return {
            **answer,
            "error": {"code": 403, "message": STORAGE_TEXTS["private" if repo.private else "public"]},
        }
    elif size > context.config.max_file_size:
        return {
            **answer,
            "error": {
                "code": 422,
                "message": f"The file is too large: {size} bytes are larger than the "
                f"limit of {context.config.max_file_size}",
            },
        }
    else:
        actions = _upload_actions(context, repo, transfers, oid, size)
    return {**answer, "authenticated": True, "actions": actions}


def _action(context, href, header=None):
    action = {"href": href, "expires_at": iso_date(time.time() + context.config.signature_lifetime_s)}
    return {**action, "header": header} if header else action


def _upload_actions(context, repo, transfers, oid, size):
    verify = {"href": f"{context.endpoint}/{repo.prefix}{repo.id}.git/info/lfs/objects/verify"}
    authorization = context.request.headers["authorization"]
    if authorization.lower().startswith("basic "):  # git-lfs asks no credential store for actions
        verify["header"] = {"Authorization": authorization}
    if "multipart" in transfers and size > context.config.multipart_threshold:
        return {"upload": _start_multipart(context, repo, oid, size), "verify": verify}
    url = context.signer.url(
        "PUT", object_path(repo, oid), [("x-hub-size", str(size)), ("x-id", "PutObject")]
    )
    return {"upload": _action(context, url), "verify": verify}


def _start_multipart(context, repo, oid, size):
    chunk = context.config.chunk_size
    upload = repo.uid + uuid.uuid4().hex
    folder = os.path.join(context.store.root, "uploads", upload)
    os.makedirs(folder)
    open(os.path.join(folder, "data"), "wb").close()
    with open(os.path.join(folder, "upload.json"), "w", encoding="utf-8") as file:
        json.dump({"repo": repo.uid, "oid": oid, "size": size, "chunk_size": chunk}, file)
    parts = {
        f"{number:05d}": context.signer.url("PUT", part_path(upload, number), [("x-id", "UploadPart")])
        for number in range(1, -(-size // chunk) + 1)
    }
    return _action(
        context,
        f"{context.endpoint}/api/complete_multipart?uploadId={upload}",
        {"chunk_size": str(chunk), **parts},
    )


@route("POST", "/api/complete_multipart")
def complete_multipart(context):
    """The upload id in the URL is the authority, as on the Hub."""
    upload = context.request.param("uploadId", "")
    folder = os.path.join(context.store.root, "uploads", upload)
    if not upload.isalnum() or not os.path.isdir(folder):
        raise ApiError(404, "The specified upload does not exist")
    with open(os.path.join(folder, "upload.json"), encoding="utf-8") as file:
        facts = json.load(file)
    repo = context.store.by_uid(facts["repo"])
    body = context.json()
    if repo is None or body.get("oid") != facts["oid"]:
        raise ApiError(400, "The upload is for another object")
    _check_parts(folder, facts, context.items(body, "parts", 1, MAX_PARTS))
    path = os.path.join(folder, "data")
    if os.path.getsize(path) != facts["size"] or _sha256(path) != facts["oid"]:
        raise ApiError(400, "The content does not match the announced digest and size")
    repo.adopt_lfs(facts["oid"], path)
    shutil.rmtree(folder)
    return json_response({}, 200, LFS_TYPE)


def _check_parts(folder, facts, parts):
    """Every part must be there, in order, with the ETag its upload was answered with."""
    count = -(-facts["size"] // facts["chunk_size"])
    if [part.get("partNumber") for part in parts] != list(range(1, count + 1)):
        raise ApiError(400, f"parts must be the {count} parts of the upload in ascending order")
    for part in parts:
        number = part["partNumber"]
        try:
            with open(os.path.join(folder, f"{number:05d}.json"), encoding="utf-8") as file:
                stored = json.load(file)
        except FileNotFoundError:
            raise ApiError(400, f"Part {number} was not uploaded") from None
        expected = min(facts["chunk_size"], facts["size"] - (number - 1) * facts["chunk_size"])
        if part.get("etag") != stored["etag"] or stored["size"] != expected:
            raise ApiError(400, f"Part {number} has another ETag or size")


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@route("POST", "/{pre}{id.git}/info/lfs/objects/verify")
def verify(context, pre, id):
    repo = context.repo(pre, id)
    context.user()
    body = context.json()
    oid, size = str(body.get("oid")), body.get("size")
    stored = repo.lfs_size(oid) if SHA256.match(oid) else None
    if stored is None:
        raise ApiError(404, f"Object {oid} does not exist")
    if stored != size:
        raise ApiError(422, f"Object {oid} has {stored} bytes, not {size}")
    return json_response({}, 200, LFS_TYPE)
