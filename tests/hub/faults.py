"""Bad answers on request: which requests meet a fault, and what each kind of fault does.

A fault is `{"method"?, "path"?, "origin"?, "times", "skip", "action": {NAME: VALUE, …}}`; `path` is a
regular expression searched in the raw path with its query. The first fault that matches and is not
used up is taken. A new kind of fault is one subclass of `Action` in `KINDS`, THE list of all kinds:
`python3 tests/hub --list-faults` prints it, and the tests are parametrised over it.
"""

import contextlib
import functools
import io
import itertools
import json
import re
import socket
import tempfile
import threading

import gzip_trap
from data_origin import refuse
from http_engine import CHUNK, Response, Vanish, json_response
from quotas import bucket_of
from routes import find_route
from store import TYPES
from wire import Wire, abort

IN_MEMORY = 1 << 23
PORTAL = b"""<!DOCTYPE html>
<html><head><title>Welcome to the guest network</title></head>
<body><form action="/login">Please accept the terms of use to go on.</form></body></html>
"""
REPO_ID = re.compile(r"[0-9a-f]{24}")


class Action:
    """One kind of fault. Its docstring says what happens, for the list; `imitates` says where that comes
    from; `example` is a value that the tests use. `released` is set when the fault is cleared."""

    name = example = imitates = None

    def __init__(self, value, spec, world):
        self.value = value
        self.spec = spec
        self.store = world.store
        self.released = world.released

    def before(self, request):
        """May answer instead of the work being done."""
        return None

    def work(self, request, work):
        """Does the work (`work(request)` gives the answer); may do it more than once, or later."""
        return work(request)

    def after(self, request, response):
        """May change the finished answer."""
        return response

    def wire(self, response):
        response.wire = response.wire or Wire(self.released)
        return response.wire


class Status(Action):
    """answers this status, with `body` (text or JSON) and `headers`; nothing is done"""

    name, example = "status", 503
    imitates = "a server that is overloaded, being deployed or broken; 403 and the like: a refusal"

    def before(self, request):
        return _answer(self.value, self.spec)


class RateLimited(Action):
    """answers 429 with `RateLimit: "BUCKET";r=0;t=N`; nothing is done"""

    name, example = "rate_limited", 1
    imitates = "a used-up quota of requests; the storage's own 429 has `Retry-After`"

    def before(self, request):
        if request.origin == "data":
            return _answer(429, {"body": "Too Many Requests", "headers": {"Retry-After": str(self.value)}})
        headers = {
            "RateLimit": f'"{bucket_of(request.path)}";r=0;t={self.value}',
            "RateLimit-Policy": f'"fixed window";"{bucket_of(request.path)}";q=1000;w=300',
        }
        return _answer(429, {"body": {"error": "We had to rate limit you"}, "headers": headers})


class Delay(Action):
    """waits N milliseconds, then does the work, even if the client has gone"""

    name, example = "delay_ms", 300
    imitates = "a long way, or a busy server"

    def before(self, request):
        self.released.wait(self.value / 1000)


class DelayAnswer(Action):
    """does the work, then waits N milliseconds with the answer"""

    name, example = "delay_answer_ms", 300
    imitates = "a slow way back"

    def after(self, request, response):
        self.released.wait(self.value / 1000)
        return response


class Bandwidth(Action):
    """takes and gives N bytes a second"""

    name, example = "bandwidth", 2_000_000
    imitates = "a slow line; each connection has it for itself"

    def before(self, request):
        request.stream = io.BufferedReader(_Throttled(request.stream, self.value, self.released), 1 << 16)

    def after(self, request, response):
        self.wire(response).rate = self.value
        return response


class CutAfter(Action):
    """closes the connection after N bytes of the body"""

    name, example = "cut_after", 10
    imitates = "a proxy or server that restarts in the middle of an answer"

    def after(self, request, response):
        self.wire(response).cut = self.value
        return response


class Reset(Action):
    """resets the connection (RST) instead of an answer; nothing is done"""

    name, example = "reset", True
    imitates = "a load balancer that dropped the connection, a firewall"

    def before(self, request):
        abort(request)


class ResetAfter(Action):
    """resets the connection (RST) after N bytes of the body"""

    name, example = "reset_after", 10
    imitates = "the same in the middle of an answer"

    def after(self, request, response):
        wire = self.wire(response)
        wire.cut, wire.reset = self.value, True
        return response


class LoseAnswer(Action):
    """does the work, closes the connection without a byte"""

    name, example = "lose_answer", True
    imitates = "a network that breaks at the worst moment"

    def after(self, request, response):
        response.close()
        raise Vanish("answer lost by a fault")


class LoseAnswerStatus(Action):
    """does the work, answers this status"""

    name, example = "lose_answer_status", 504
    imitates = "a gateway that waits less long than the server works"

    def after(self, request, response):
        response.close()
        return _answer(self.value, self.spec)


class Stall(Action):
    """neither works nor answers until it is cleared; a client that leaves before has changed nothing"""

    name, example = "stall", True
    imitates = "a peer that is gone without a word"

    def before(self, request):
        if request.wait_or_gone(self.released):
            raise Vanish("the peer left a stalled request")


class StallAfter(Action):
    """gives N bytes of the body, the rest when the fault is cleared"""

    name, example = "stall_after", 10
    imitates = "the same in the middle of an answer"

    def after(self, request, response):
        self.wire(response).pause = self.value
        return response


class Twice(Action):
    """does the work twice with the same request and gives the second answer"""

    name, example = "twice", True
    imitates = "a proxy that repeats a request it thought lost"

    def work(self, request, work):
        with _kept_body(request) as body:
            _complete(work(request)).close()
            body.seek(0)
            return _complete(work(request))


class Late(Action):
    """closes the connection, and does the work N milliseconds later"""

    name, example = "late_ms", 300
    imitates = "a request that waited in a queue while its client gave up, and perhaps tried again"

    def work(self, request, work):
        with _kept_body(request):
            request.sock.shutdown(socket.SHUT_RDWR)
            self.released.wait(self.value / 1000)
            _complete(work(request)).close()
        raise Vanish("the answer of a late request")


class MoveHead(Action):
    """first commits a file of that name to the branch that the request is about"""

    name, example = "move_head", "theirs.txt"
    imitates = "somebody else's push, at the commit route: between preupload and commit"

    def before(self, request):
        target = _branch_of(request, self.store)
        if target:
            repo, branch = target
            repo.commit_files(branch, {self.value: b"pushed by somebody else\n"}, "Somebody else's push")


class WrongRange(Action):
    """gives a `Content-Range` that is N bytes off (or one that nobody asked for)"""

    name, example = "wrong_range", 100
    imitates = "a cache that serves the bytes of another range"

    def after(self, request, response):
        headers = [(name, value) for name, value in response.headers if name.lower() != "content-range"]
        given = re.match(r"bytes (\d+)-(\d+)/(\d+)", dict(response.headers).get("Content-Range", ""))
        length = len(response.body) if hasattr(response.body, "__len__") else 1
        first, last, total = map(int, given.groups()) if given else (0, max(0, length - 1), length)
        shifted = f"bytes {first + self.value}-{last + self.value}/{total + (0 if given else self.value)}"
        response.headers = [*headers, ("Content-Range", shifted)]
        return response


class WrongLength(Action):
    """announces N bytes more than it gives (below 0: fewer), then closes the connection"""

    name, example = "wrong_length", 100
    imitates = "a proxy that changed the body and not the header"

    def after(self, request, response):
        self.wire(response).longer = self.value
        return response


class FlipByte(Action):
    """changes the highest bit of the byte at offset N of the body; of a PUT: of what is uploaded"""

    name, example = "flip_byte", 7
    imitates = "bad memory in a machine on the way, a rotten cache"

    def before(self, request):
        if request.method == "PUT":
            request.stream = io.BufferedReader(_Flipped(request.stream, self.value), 1 << 18)

    def after(self, request, response):
        self.wire(response).flip = self.value
        return response


class ExpiredSignature(Action):
    """the storage refuses as for an expired URL; the Hub hands out URLs that have expired"""

    name, example = "expired_signature", True
    imitates = "a signed URL out of a cache, or a clock that is wrong"

    def before(self, request):
        if request.origin == "data":
            return refuse(403, "AccessDenied", "Request has expired")  # whatever the switch expired_body says
        request.settings.update(signature_lifetime_s=0, upload_lifetime_s=0)
        return None


class Portal(Action):
    """answers an HTML page with status 200; nothing is done"""

    name, example = "portal", True
    imitates = "the captive portal of a hotel"

    def before(self, request):
        return Response(200, PORTAL, [("Content-Type", "text/html; charset=utf-8")])


class SmallPages(Action):
    """gives listings in pages of N entries"""

    name, example = "small_pages", 2
    imitates = "a Hub with another limit"

    def before(self, request):
        request.settings["page_size"] = self.value


class EmptyListing(Action):
    """empties every list in the JSON of the answer, and leaves out the link to the next page"""

    name, example = "empty_listing", True
    imitates = "a replica that has not heard of the repository's content"

    def after(self, request, response):
        if response.status != 200 or "json" not in dict(response.headers).get("Content-Type", ""):
            return response
        value = json.loads(response.body)
        emptied = (
            []
            if isinstance(value, list)
            else {name: [] if isinstance(item, list) else item for name, item in value.items()}
        )
        kept = [(name, item) for name, item in response.headers if name not in ("Content-Type", "Link")]
        return json_response(emptied, 200, kept)


class Gzip(Action):
    """compresses the answer although nobody asked for it; VALUE as the setting `gzip`"""

    name, example = "gzip", "length"
    imitates = "a proxy that compresses on its own"

    def work(self, request, work):
        return gzip_trap.answer(request, work, self.value)


KINDS = [
    Status,
    RateLimited,
    Delay,
    DelayAnswer,
    Bandwidth,
    CutAfter,
    Reset,
    ResetAfter,
    LoseAnswer,
    LoseAnswerStatus,
    Stall,
    StallAfter,
    Twice,
    Late,
    MoveHead,
    WrongRange,
    WrongLength,
    FlipByte,
    ExpiredSignature,
    Portal,
    SmallPages,
    EmptyListing,
    Gzip,
]
ACTIONS = {kind.name: kind for kind in KINDS}
DETAILS = {"body", "headers"}


def list_faults():
    """THE list as a Markdown table."""
    lines = ["| action | effect | imitates |", "|---|---|---|"]
    lines += [
        f'| `"{kind.name}": {json.dumps(kind.example)}` | {kind.__doc__} | {kind.imitates} |'
        for kind in KINDS
    ]
    return "\n".join(lines)


# What the kinds need


class _Throttled(io.RawIOBase):
    """A request's body at some bytes a second."""

    def __init__(self, stream, rate, released):
        super().__init__()
        self.stream, self.rate, self.released = stream, rate, released

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.stream.readinto1(memoryview(buffer)[: max(1, self.rate // 20)])
        self.released.wait(count / self.rate)
        return count


class _Flipped(io.RawIOBase):
    """A request's body with one byte changed."""

    def __init__(self, stream, offset):
        super().__init__()
        self.stream, self.left = stream, offset

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.stream.readinto1(buffer)
        if 0 <= self.left < count:
            memoryview(buffer)[self.left] ^= 0x80
        self.left -= count
        return count


@contextlib.contextmanager
def _kept_body(request):
    """The whole body of a request, as a file from which the request is read meanwhile."""
    arrived = request.stream
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as body:
        while piece := arrived.read(CHUNK):
            body.write(piece)
        body.seek(0)
        request.stream = body
        try:
            yield body
        finally:
            request.stream = arrived


def _complete(response):
    """The answer with a body that needs nothing of the request any more."""
    if not hasattr(response.body, "__len__"):
        response.body = b"".join(response.body)
        response.duplex = False
    return response


def _branch_of(request, store):
    """(repository, branch) that a request is about, None if it is about none."""
    if request.origin == "data" or request.path == "/api/complete_multipart":
        found = REPO_ID.search(request.target)
        repo = store.by_uid(found[0]) if found else None
        return (repo, "main") if repo else None
    arguments = (find_route(request.method, request.path) or (None, {}))[1]
    kind = arguments.get("T") or (arguments.get("pre") or "models").rstrip("/")
    repo = store.find(TYPES[kind], arguments["id"]) if "id" in arguments else None
    branch = arguments.get("rev") or "main"
    return (repo, branch) if repo and repo.writable_ref(branch) else None


def _answer(status, spec):
    body = spec.get("body", {"error": f"Answered {status} by a fault"})
    kind = "text/plain; charset=utf-8"
    if not isinstance(body, str):
        body, kind = json.dumps(body), "application/json; charset=utf-8"
    headers = dict(spec.get("headers", {}))
    if "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = kind
    return Response(status, body.encode(), headers.items())


class Fault:
    """One fault: what it matches, how often, and its actions in the order they were given."""

    def __init__(self, number, spec, store):
        unknown = set(spec) - {"method", "path", "origin", "times", "skip", "action"}
        action = spec.get("action") or {}
        unknown |= set(action) - set(ACTIONS) - DETAILS
        if unknown or not set(action) & set(ACTIONS):
            raise ValueError(f"unknown or missing in a fault: {sorted(unknown) or 'action'}")
        self.id = number
        self.spec = spec
        self.path = re.compile(spec.get("path", ""))
        self.skip = spec.get("skip", 0)
        self.times = spec.get("times", 1)
        self.hits = 0
        self.store = store
        self.released = threading.Event()
        self.actions = [
            ACTIONS[name](value, action, self)
            for name, value in action.items()
            if name in ACTIONS and value is not False
        ]

    def matches(self, request):
        return (
            self.spec.get("method") in (None, request.method)
            and self.spec.get("origin") in (None, request.origin)
            and self.path.search(request.target) is not None
        )

    def before(self, request):
        for action in self.actions:
            response = action.before(request)
            if response is not None:
                return response
        return None

    def work(self, request, work):
        for action in self.actions:
            work = functools.partial(action.work, work=work)
        return work(request)

    def after(self, request, response):
        for action in self.actions:
            response = action.after(request, response)
        return response

    def describe(self):
        return {"id": self.id, "hits": self.hits, **self.spec}


class Faults:
    """All faults that a test has set, in the order in which they were added."""

    def __init__(self, store):
        self.store = store
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.active = []

    def add(self, spec):
        fault = Fault(next(self.numbers), spec, self.store)
        with self.lock:
            self.active.append(fault)
        return fault

    def match(self, request):
        with self.lock:
            for fault in self.active:
                if fault.times == 0 or not fault.matches(request):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                fault.hits += 1
                return fault
        return None

    def clear(self, number=None):
        """Remove one fault or all, and free whoever is stalled or delayed by them."""
        with self.lock:
            gone = [fault for fault in self.active if number in (None, fault.id)]
            self.active = [fault for fault in self.active if fault not in gone]
        for fault in gone:
            fault.released.set()
        return len(gone)

    def describe(self):
        with self.lock:
            return [fault.describe() for fault in self.active]
