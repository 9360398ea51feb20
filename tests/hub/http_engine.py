"""HTTP/1.1 engine: sockets, threads, keep-alive, and the wire side of recording and faults.

One `Origin` is one listening port. Every connection has a thread of its own; a connection is kept
alive until the peer closes it. An application is a callable `app(Request) -> Response`; it decides
what is answered, the engine decides how it goes over the wire. Bodies are streamed both ways: a
request body is a file object, a response body is bytes, a slice of a file (sent by sendfile) or an
iterator (sent chunked).

The request path is kept raw, exactly as it came: `refs%2Fpr%2F1` is one segment, and decoding is the
router's business.
"""

import io
import json
import os
import select
import shutil
import socket
import ssl
import tempfile
import threading
import time
import traceback
import urllib.parse
from email.utils import formatdate
from http import HTTPStatus

CHUNK = 1 << 20
MAX_HEADERS = 200


class Vanish(Exception):
    """Close the connection now, without another byte."""


class BadRequest(Exception):
    """The bytes on the wire are not an HTTP request."""


class FileSlice:
    """Response body: `length` bytes of the file at `path`, from `offset`."""

    def __init__(self, path, offset, length):
        self.file = open(path, "rb")
        self.offset = offset
        self.length = length

    def __len__(self):
        return self.length

    def close(self):
        self.file.close()


class Response:
    """Status, headers (a list of pairs) and a body: bytes, FileSlice, or an iterator of bytes.

    `wire` is set by faults: it sends the answer in place of `send`, badly (wire.py). `duplex` says that the
    request's body is still being read, by another thread, while the answer is sent.
    """

    def __init__(self, status, body=b"", headers=(), duplex=False):
        self.status = status
        self.body = body
        self.headers = list(headers)
        self.duplex = duplex
        self.wire = None

    def close(self):
        if hasattr(self.body, "close"):
            self.body.close()

    def head(self):
        """The status line and headers as bytes, with the framing of the body added."""
        try:
            reason = HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {reason}", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.status not in (204, 304):
            if hasattr(self.body, "__len__"):
                lines.append(f"Content-Length: {len(self.body)}")
            else:
                lines.append("Transfer-Encoding: chunked")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def json_response(value, status=200, headers=()):
    body = json.dumps(value).encode()
    return Response(status, body, [("Content-Type", "application/json; charset=utf-8"), *headers])


class RawBody(io.RawIOBase):
    """The body of one request, by Content-Length or chunked. Raises Vanish if the peer goes away."""

    def __init__(self, reader, headers, before_first_read):
        super().__init__()
        self.reader = reader
        self.chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length") or "0"
        if not length.isdigit():
            raise BadRequest("Content-Length is no number")
        self.left = 0 if self.chunked else int(length)
        self.ended = not self.chunked and self.left == 0
        self.received = 0
        self.before_first_read = before_first_read

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.before_first_read:
            self.before_first_read()
            self.before_first_read = None
        if self.chunked and self.left == 0 and not self.ended:
            self._next_chunk()
        if self.ended:
            return 0
        count = self.reader.readinto1(memoryview(buffer)[: self.left])
        if not count:
            raise Vanish("the peer closed inside a request body")
        self.received += count
        self.left -= count
        if self.left == 0:
            if self.chunked:
                self.reader.readline()
            else:
                self.ended = True
        return count

    def _next_chunk(self):
        line = self.reader.readline()
        if not line:
            raise Vanish("the peer closed inside a chunked body")
        self.left = int(line.split(b";")[0], 16)
        if self.left == 0:
            self.ended = True
            while self.reader.readline() not in (b"\r\n", b"\n", b""):
                pass


class Request:
    """One request: `path` and `query` are raw; `stream` is the body as a buffered file object."""

    def __init__(self, origin, method, target, headers, raw_body, sock):
        self.origin = origin
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.raw_body = raw_body
        self.stream = io.BufferedReader(raw_body, 1 << 18)
        self.sock = sock
        self.settings = {}  # of config.py, changed by a fault for this request alone

    def params(self):
        """The decoded query as a list of (name, value)."""
        return urllib.parse.parse_qsl(self.query, keep_blank_values=True)

    def param(self, name, default=None):
        return dict(self.params()).get(name, default)

    def spool(self):
        """Take the whole body in now, so that the answer can be sent without the connection being read."""
        body = tempfile.TemporaryFile()
        shutil.copyfileobj(self.stream, body, CHUNK)
        body.seek(0)
        self.stream = body

    def drain(self):
        """Read what is left of the body, so that the next request on the connection is found."""
        while self.stream.read(CHUNK):
            pass

    def wait_or_gone(self, event, timeout=None):
        """Wait for `event`; True if the peer closed its end before (or the time ran out: False)."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not event.is_set():
            left = 50 if deadline is None else (deadline - time.monotonic()) * 1000
            if left <= 0:
                return False
            if poll.poll(min(left, 50)):
                return True
        return False


def read_request(reader, sock, origin):
    """Read one request head; None if the peer closed between requests."""
    line = reader.readline(1 << 16)
    while line in (b"\r\n", b"\n"):
        line = reader.readline(1 << 16)
    if not line:
        return None
    parts = line.decode("latin-1").split()
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest(line)
    headers = {}
    for _ in range(MAX_HEADERS):
        line = reader.readline(1 << 16)
        if line in (b"\r\n", b"\n"):
            break
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise BadRequest(line)
        headers[name.strip().lower()] = value.strip()
    else:
        raise BadRequest("too many headers")
    target = parts[1]
    if not target.startswith("/"):
        split = urllib.parse.urlsplit(target)
        target = (split.path or "/") + ("?" + split.query if split.query else "")

    def send_continue():
        if headers.get("expect", "").lower() == "100-continue":
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    return Request(origin, parts[0], target, headers, RawBody(reader, headers, send_continue), sock)


class Origin:
    """One listening port with its application.

    `control(request)` answers the requests of the test's own interface, or returns None for all
    others; those are recorded, meet the faults, and are then answered by `app`. `tls` is the context of
    an https origin; `config` holds the round trip to imitate.
    """

    def __init__(self, name, app, recorder, faults, config, port=0, control=None, tls=None):
        self.name = name
        self.app = app
        self.recorder = recorder
        self.faults = faults
        self.config = config
        self.control = control
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self.listener.getsockname()[1]

    def start(self):
        threading.Thread(target=self._accept, name=f"{self.name}-accept", daemon=True).start()

    def _accept(self):
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self._connection, args=(sock,), daemon=True).start()

    def _connection(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except OSError:  # a peer that does not trust us, or that speaks no TLS
                sock.close()
                return
        with sock, sock.makefile("rb", 1 << 18) as reader:
            try:
                trips = 2  # one of them for the connection
                while True:
                    request = read_request(reader, sock, self.name)
                    if request is None:
                        break
                    self._exchange(request, trips)
                    trips = 1
                    if request.headers.get("connection", "").lower() == "close":
                        break
            except BadRequest:
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except (Vanish, OSError):
                pass

    def _exchange(self, request, trips):
        """One request and its answer, so many round trips later; raises Vanish or OSError if the connection is
        finished."""
        response = self.control(request) if self.control else None
        if response is not None:
            request.drain()
            send(request, response, lambda sent: None)
            return
        time.sleep(trips * self.config.round_trip_ms / 1000)
        record = self.recorder.begin(request)
        try:
            self._answer(request, record)
        finally:
            self.recorder.finish(record, received=request.raw_body.received)

    def _answer(self, request, record):
        fault = self.faults.match(request)
        if fault:
            self.recorder.update(record, fault=fault.id)
        response = fault.before(request) if fault else None
        if response is None:
            response = fault.work(request, self._work) if fault else self._work(request)
        try:
            if not response.duplex:
                request.drain()
            if fault:
                response = fault.after(request, response)
            self.recorder.update(record, status=response.status)
            send(request, response, lambda sent: self.recorder.update(record, sent=sent))
            request.drain()
        finally:
            response.close()

    def _work(self, request):
        """The application's answer; a defect of the application is a 500 and a traceback."""
        try:
            return self.app(request)
        except (Vanish, ConnectionError):
            raise
        except Exception:
            traceback.print_exc()
            return json_response({"error": "Internal error of the test Hub"}, 500)


def send(request, response, progress):
    """Send a response. `progress(sent)` is told the count of body bytes, ahead of the bytes themselves,
    so that whoever has received an answer finds it in the record."""
    if response.wire:
        response.wire.send(request, response, progress)
        return
    sock = request.sock
    head = response.head()
    if request.method == "HEAD" or response.status in (204, 304):
        sock.sendall(head)
        return
    if not hasattr(response.body, "__len__"):
        _send_chunked(sock, head, response, progress)
        return
    if isinstance(response.body, FileSlice):
        sock.sendall(head)
        _send_file(sock, response.body, progress)
        return
    progress(len(response.body))
    sock.sendall(head + response.body)


def _send_file(sock, body, progress):
    if isinstance(sock, ssl.SSLSocket):
        _send_file_over_tls(sock, body, progress)
        return
    descriptor = body.file.fileno()
    start, stop = 0, len(body)
    while start < stop:
        progress(min(start + CHUNK, stop))
        try:
            count = os.sendfile(sock.fileno(), descriptor, body.offset + start, min(CHUNK, stop - start))
        except OSError:
            progress(start)
            raise
        if count == 0:
            raise Vanish("a stored file is shorter than its size")
        start += count
        progress(start)


def _send_file_over_tls(sock, body, progress):
    """The same for bytes that must be encrypted: the kernel cannot do it alone."""
    start, stop = 0, len(body)
    buffer = memoryview(bytearray(min(CHUNK, stop)))
    while start < stop:
        count = os.preadv(body.file.fileno(), [buffer[: stop - start]], body.offset + start)
        if count == 0:
            raise Vanish("a stored file is shorter than its size")
        progress(start + count)
        sock.sendall(buffer[:count])
        start += count


def _send_chunked(sock, head, response, progress):
    sock.sendall(head)
    sent = 0
    for piece in response.body:
        sent += len(piece)
        progress(sent)
        sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
    sock.sendall(b"0\r\n\r\n")
