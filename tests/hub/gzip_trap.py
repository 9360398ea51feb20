"""The trap of a compressing CDN: what looks like text comes back as gzip to whoever allows it.

`chunked`: without a length, with a weak ETag, and ranges are ignored (status 200). `length`: sizes and
ranges are those of the compressed bytes. Either way whoever takes the numbers for those of the file reads
wrong bytes. Clients that ask for `identity` never meet it.
"""

import gzip
import re

from http_engine import Response
from ranges import content_response

MODES = ("off", "chunked", "length")
TEXT = re.compile(r"text/|application/(?:[\w.-]+\+)?json")
SMALLEST = 20


def allows(request):
    """Whether Accept-Encoding allows gzip."""
    given = [item.split(";") for item in request.headers.get("accept-encoding", "").lower().split(",")]
    return any(
        name.strip() in ("gzip", "*") and not any(re.match(r"\s*q=0(\.0*)?\s*\Z", item) for item in more)
        for name, *more in given
    )


class GzipTrap:
    """An application whose answers are compressed as the setting `gzip` says, for clients that allow it."""

    def __init__(self, app, config):
        self.app = app
        self.config = config

    def __call__(self, request):
        mode = self.config.gzip
        return answer(request, self.app, mode) if mode != "off" and allows(request) else self.app(request)


def answer(request, work, mode):
    """The answer of `work(request)`, compressed as `mode` says if it looks like text."""
    wanted = request.headers.pop("range", None) if request.method in ("GET", "HEAD") else None
    response = work(request)
    headers = dict(response.headers)
    if (
        response.status != 200
        or not TEXT.match(headers.get("Content-Type", ""))
        or not hasattr(response.body, "__len__")
        or len(response.body) < SMALLEST
    ):
        if wanted is None:
            return response
        request.headers["range"] = wanted
        response.close()
        return work(request)
    return _compressed(request, response, headers, mode, wanted)


def _compressed(request, response, headers, mode, wanted):
    body = gzip.compress(_bytes(response.body), mtime=0)
    response.close()
    etag = headers.pop("ETag", '""')
    for name in ("Accept-Ranges", "Content-Range"):
        headers.pop(name, None)
    headers["Content-Encoding"] = "gzip"
    if mode == "chunked":
        return Response(200, iter([body]), [*headers.items(), ("ETag", "W/" + etag)])
    if wanted:
        request.headers["range"] = wanted
    return content_response(request, body, len(body), etag, headers.items())


def _bytes(body):
    if isinstance(body, bytes):
        return body
    body.file.seek(body.offset)
    return body.file.read(body.length)
