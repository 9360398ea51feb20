"""The headers of a model's safetensors files, read on the server."""

import json
import posixpath

from errors import ApiError, entry_not_found
from gitrepo import DIRECTORY
from http_engine import json_response
from routes import route

MAX_HEADER = 100_000_000


def _start(repo, commit, path, length):
    """The first bytes of a file; 404 EntryNotFound."""
    entry = repo.git.entry(commit.tree, path)
    if entry is None or entry.mode == DIRECTORY:
        raise entry_not_found(f'{path} does not exist on "main"', commit.oid)
    lfs = repo.git.blob(entry.oid).lfs
    if lfs is None:
        return repo.git.content(entry.oid)[:length]
    with open(repo.lfs_path(lfs.oid), "rb") as file:
        return file.read(length)


def _header(repo, commit, path):
    """A file's header: eight bytes of length, and so much JSON."""
    length = int.from_bytes(_start(repo, commit, path, 8), "little")
    try:
        if not 0 < length <= MAX_HEADER:
            raise ValueError("the length of the header is wrong")
        return json.loads(_start(repo, commit, path, 8 + length)[8:])
    except ValueError as error:
        raise ApiError(400, f"{path} is not a safetensors file: {error}") from None


@route("GET", "/api/models/{id}/safetensors-metadata/{path*}")
def safetensors_metadata(context, id, path):
    """The index without its map of tensors, and the header of every file that it names."""
    repo = context.repo("models", id, "bytes")
    commit = repo.commit("main")
    try:
        index = json.loads(_start(repo, commit, path, MAX_HEADER))
        shards = sorted(set(index.pop("weight_map").values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ApiError(400, f"{path} is not the index of a sharded model") from None
    folder = posixpath.dirname(path)
    headers = {shard: _header(repo, commit, posixpath.join(folder, shard)) for shard in shards}
    return json_response({"index": index, "headers": headers})
