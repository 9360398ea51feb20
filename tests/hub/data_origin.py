"""The data origin: the object storage behind the Hub, on a host name of its own.

It knows no accounts. A request that carries `Authorization` or `Cookie` is refused, for a client that
sends either has leaked it; so is one whose signature is wrong or expired. What is uploaded is compared
with the digest and size that were announced.
"""

import hashlib
import json
import os
import re
import socket
import struct
import urllib.parse
import uuid

from http_engine import CHUNK, Response
from ranges import content_response

OBJECT = re.compile(r"/lfs/([0-9a-f]{24})/([0-9a-f]{64})\Z")
SO_MAX_PACING_RATE = 47  # of Linux; Python has no name for it
NO_RATE = (1 << 64) - 1
PART = re.compile(r"/uploads/([0-9a-f]{56})/(\d{5})\Z")


def refuse(status, code, message):
    body = (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
            f"<RequestId>{uuid.uuid4().hex[:16].upper()}</RequestId></Error>")
    return Response(status, body.encode(), [("Content-Type", "application/xml")])


def data_etag(oid):
    """The storage's own ETag of an object: 64 hex digits that are not its SHA-256."""
    return '"' + hashlib.sha256(b"data origin etag " + oid.encode()).hexdigest() + '"'


class DataOrigin:
    def __init__(self, store, signer):
        self.store = store
        self.signer = signer

    def __call__(self, request):
        rate = self.signer.config.data_rate or NO_RATE
        request.sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("=Q", rate))
        if "authorization" in request.headers or "cookie" in request.headers:
            return refuse(403, "AccessDenied", "A credential of the Hub was sent to the data origin")
        problem = self.signer.problem(request.method, request.headers.get("host", ""), request.path, request.query)
        if problem:
            return refuse(403, *problem)
        match = OBJECT.match(request.path)
        if match and request.method in ("GET", "HEAD"):
            return self._get(request, *match.groups())
        if match and request.method == "PUT":
            return self._put(request, *match.groups())
        match = PART.match(request.path)
        if match and request.method == "PUT":
            return self._put_part(request, *match.groups())
        return refuse(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")

    def _get(self, request, uid, oid):
        repo = self.store.by_uid(uid)
        size = repo.lfs_size(oid) if repo else None
        if size is None:
            return refuse(404, "NoSuchKey", "The specified key does not exist.")
        disposition = request.param("response-content-disposition")
        headers = [("Content-Type", "application/octet-stream"), ("Cache-Control", "public, max-age=31536000")]
        if disposition:
            headers.append(("Content-Disposition", disposition))
        return content_response(request, repo.lfs_path(oid), size, data_etag(oid), headers)

    def _put(self, request, uid, oid):
        repo = self.store.by_uid(uid)
        if repo is None:
            return refuse(404, "NoSuchBucket", "The repository does not exist.")
        refusal = self._length_problem(request)
        if refusal:
            return refusal
        file, temporary = self.store.temporary()
        try:
            with file:
                digest, size = _receive(request, file, hashlib.sha256())
            if digest != oid or size != int(request.param("x-hub-size")):
                return refuse(400, "BadDigest", "The content does not match the announced digest and size.")
            repo.adopt_lfs(oid, temporary)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return Response(200, b"", [("ETag", data_etag(oid))])

    def _put_part(self, request, upload, part):
        folder = os.path.join(self.store.root, "uploads", upload)
        if not os.path.isdir(folder):
            return refuse(404, "NoSuchUpload", "The specified upload does not exist.")
        refusal = self._length_problem(request)
        if refusal:
            return refusal
        with open(os.path.join(folder, "upload.json"), encoding="utf-8") as file:
            chunk_size = json.load(file)["chunk_size"]
        if int(request.headers["content-length"]) > chunk_size:
            return refuse(400, "EntityTooLarge", "The part is larger than the chunk size.")
        with open(os.path.join(folder, "data"), "r+b") as file:
            file.seek((int(part) - 1) * chunk_size)
            digest, size = _receive(request, file, hashlib.md5(usedforsecurity=False))
        with open(os.path.join(folder, part + ".json"), "w", encoding="utf-8") as file:
            json.dump({"etag": f'"{digest}"', "size": size}, file)
        return Response(200, b"", [("ETag", f'"{digest}"')])

    def _length_problem(self, request):
        if request.raw_body.chunked or "content-length" not in request.headers:
            return refuse(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if request.headers["content-length"] == "0":
            return refuse(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
        if int(request.headers["content-length"]) > self.store.config.max_put_size:
            return refuse(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
        return None


def _receive(request, file, digest):
    """Copy a request's body into a file; (hex digest, size)."""
    size = 0
    while piece := request.stream.read(CHUNK):
        digest.update(piece)
        file.write(piece)
        size += len(piece)
    return digest.hexdigest(), size


def object_path(repo, oid):
    return f"/lfs/{repo.uid}/{oid}"


def part_path(upload, number):
    return f"/uploads/{upload}/{number:05d}"


def download_url(signer, repo, oid, name=None):
    """A signed URL to read an LFS object; `name` is what a browser would call the file."""
    parameters = []
    if name:
        quoted = urllib.parse.quote(name)
        disposition = f"inline; filename*=UTF-8''{quoted}; filename=\"{quoted}\";"
        parameters.append(("response-content-disposition", disposition))
    return signer.url("GET", object_path(repo, oid), [*parameters, ("x-id", "GetObject")])
