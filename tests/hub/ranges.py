"""Conditional and ranged answers for content whose size and ETag are known."""

import re

from http_engine import FileSlice, Response

ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


def matches_etag(request, etag):
    """Whether If-None-Match names this (quoted) ETag."""
    given = request.headers.get("if-none-match", "")
    return given == "*" or etag in [item.strip().removeprefix("W/") for item in given.split(",")]


def parse_range(header, size):
    """(start, end) with end exclusive; None for no usable range; ValueError if it cannot be met."""
    match = ONE_RANGE.match(header or "")
    if not match or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or size), size - 1) + 1
        if match[2] and int(match[2]) < int(match[1]):
            return None
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= size or end <= start:
        raise ValueError("range outside the content")
    return start, end


def content_response(request, content, size, etag, headers, conditional=True):
    """Answer a GET or HEAD with `content`: bytes, or the path of a file of `size` bytes. Without
    `conditional`, If-None-Match is not looked at."""
    headers = [("ETag", etag), ("Accept-Ranges", "bytes"), *headers]
    if conditional and matches_etag(request, etag):
        return Response(304, b"", headers)
    try:
        found = parse_range(request.headers.get("range"), size)
    except ValueError:
        return Response(416, b"Range Not Satisfiable", [*headers, ("Content-Range", f"bytes */{size}")])
    start, end = found or (0, size)
    if found:
        headers.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
    body = content[start:end] if isinstance(content, bytes) else FileSlice(content, start, end - start)
    return Response(206 if found else 200, body, headers)
