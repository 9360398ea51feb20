"""Each kind of fault of the test Hub: what it does, and that it can be had on any route, once or for ever."""

import concurrent.futures
import gzip
import hashlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest
from faults import ACTIONS, KINDS

HUB = pathlib.Path(__file__).resolve().parent.parent / "hub"
BROKEN = (OSError, http.client.HTTPException)
CONTENT = bytes(range(250)) * 4
UPLOADED = b"what is uploaded " * 100


class World:
    """A repository with a regular and an LFS file, and one request to each kind of route."""

    def __init__(self, hub, repo):
        self.hub, self.repo = hub, repo
        hub.commit(
            repo, {"t.txt": b"0123456789" * 10, "w.bin": CONTENT, "d/x": b"x", "d/y": b"y", "d/z": b"z"}
        )
        self.number = 0

    def listing(self):
        return self.hub.request("GET", f"{self.hub.api(self.repo)}/tree/main?recursive=true")

    def regular(self, **headers):
        return self.hub.request(
            "GET", f"/api/resolve-cache/models/{self.repo}/{self.head()}/t.txt", headers=headers
        )

    def resolve(self):
        return self.hub.request("HEAD", f"/{self.repo}/resolve/main/w.bin")

    def lfs(self, **headers):
        return self.hub.request("GET", self.resolve().headers["Location"], headers=headers, token=None)

    def preupload(self):
        files = [{"path": "new", "size": 1, "sample": ""}]
        return self.hub.request("POST", f"{self.hub.api(self.repo)}/preupload/main", {"files": files})

    def batch(self):
        item = {"oid": hashlib.sha256(UPLOADED).hexdigest(), "size": len(UPLOADED)}
        return self.hub.request(
            "POST",
            f"/{self.repo}.git/info/lfs/objects/batch",
            {"operation": "upload", "transfers": ["basic"], "objects": [item]},
        )

    def put(self):
        upload = json.loads(self.batch().body)["objects"][0].get("actions")
        if not upload:  # an earlier request has brought it
            return None
        return self.hub.request("PUT", upload["upload"]["href"], UPLOADED, token=None)

    def verify(self):
        item = {"oid": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
        return self.hub.request("POST", f"/{self.repo}.git/info/lfs/objects/verify", item)

    def commit(self):
        self.number += 1
        lines = [
            {"key": "header", "value": {"summary": "s"}},
            {"key": "file", "value": {"path": f"new-{self.number}", "content": "x"}},
        ]
        return self.hub.request(
            "POST",
            f"{self.hub.api(self.repo)}/commit/main",
            b"".join(json.dumps(line).encode() + b"\n" for line in lines),
        )

    def fetch(self):
        return self.hub.request("GET", f"/{self.repo}.git/info/refs?service=git-upload-pack")

    def unknown(self):
        return self.hub.request("GET", "/api/no-such-route")

    def head(self):
        return self.hub.git(self.repo, "rev-parse", "main").decode().strip()

    def commits(self):
        return len(self.hub.history(self.repo))


ROUTES = {  # a request, and what its target looks like
    World.listing: "/tree/",
    World.regular: "/api/resolve-cache/",
    World.resolve: "/resolve/",
    World.lfs: "/lfs/.*GetObject",
    World.preupload: "/preupload/",
    World.batch: "/objects/batch",
    World.put: "/lfs/.*PutObject",
    World.verify: "/verify",
    World.commit: "/commit/",
    World.fetch: "/info/refs",
    World.unknown: "/no-such-route",
}


@pytest.fixture
def world(hub, repo):
    return World(hub, repo)


def attempt(call):
    """The answer, or the exception with which the connection ended."""
    try:
        return call()
    except BROKEN as error:
        return error


def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_background(world, call, fault, until):
    """Start a request, wait until the record of its fault fulfils `until`, clear all faults; the answer."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        since = world.hub.last_seq()
        answer = pool.submit(attempt, call)
        world.hub.wait_for(
            lambda seen: [item for item in seen if item["fault"] == fault and until(item)], since=since
        )
        world.hub.clear_faults()
        return answer.result(30)


def test_the_readme_has_the_list():
    listed = subprocess.run(
        [sys.executable, HUB, "--list-faults"], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    assert len(listed.splitlines()) == len(KINDS) + 2
    assert listed in (HUB / "README.md").read_text()
    assert all(kind.name and kind.example is not None and kind.imitates and kind.__doc__ for kind in KINDS)


@pytest.mark.parametrize("name", ACTIONS)
def test_on_every_route_and_then_never_again(world, name):
    for call, path in ROUTES.items():
        fault = world.hub.fault(path, **{name: ACTIONS[name].example})
        if name == "stall":
            in_background(world, lambda: call(world), fault, lambda item: True)
        elif name == "stall_after":
            in_background(world, lambda: call(world), fault, lambda item: item["status"])
        else:
            attempt(lambda: call(world))
            assert [item["hits"] for item in world.hub.faults()] == [1], path
            world.hub.clear_faults()
            world.hub.wait_for(lambda seen: all(item["end"] for item in seen))  # also what comes late
        answer = call(world)
        assert answer is None or answer.status in (200, 302, 404), (path, answer.status)
    assert world.hub.git(world.repo, "fsck") == b""


@pytest.mark.parametrize("name", ACTIONS)
def test_for_ever_means_until_it_is_cleared(world, name):
    fault = world.hub.fault("/refs$", times=-1, **{name: ACTIONS[name].example})
    for _ in range(3):
        if name.startswith("stall"):
            with socket.create_connection(world.hub.endpoint.removeprefix("http://").split(":")) as sock:
                sock.sendall(f"GET {world.hub.api(world.repo)}/refs HTTP/1.1\r\n\r\n".encode())
                world.hub.wait_for(
                    lambda seen: seen[-1]["fault"] == fault and (name == "stall" or seen[-1]["sent"])
                )
        else:
            attempt(lambda: world.hub.request("GET", f"{world.hub.api(world.repo)}/refs"))
    assert world.hub.faults()[0]["hits"] == 3
    world.hub.clear_faults()
    assert world.hub.request("GET", f"{world.hub.api(world.repo)}/refs").status == 200


# What each kind does


def check_status(world):
    world.hub.fault("/tree/", status=503, body={"error": "busy"}, headers={"Retry-After": "1"})
    answer = world.listing()
    assert (answer.status, answer.json(), answer.headers["Retry-After"]) == (503, {"error": "busy"}, "1")


def check_rate_limited(world):
    world.hub.fault("/tree/", rate_limited=7)
    answer = world.listing()
    assert (answer.status, answer.headers["RateLimit"]) == (429, '"api";r=0;t=7')
    assert answer.headers["RateLimit-Policy"].startswith('"fixed window";"api"')
    world.hub.fault("/resolve/", rate_limited=2)
    assert world.resolve().headers["RateLimit"] == '"resolvers";r=0;t=2'
    world.hub.fault(origin="data", rate_limited=2)
    assert world.lfs().headers["Retry-After"] == "2"


def lasts(world, fault_name, call):
    world.hub.fault("/(tree|commit)/", **{fault_name: 300})
    began = time.monotonic()
    assert call(world).status == 200
    return time.monotonic() - began >= 0.3


def check_delay_ms(world):
    assert lasts(world, "delay_ms", World.listing) and lasts(world, "delay_ms", World.commit)


def check_delay_answer_ms(world):
    assert lasts(world, "delay_answer_ms", World.listing)
    before = world.commits()
    fault = world.hub.fault("/commit/", delay_answer_ms=60_000)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(world.commit)
        eventually(lambda: world.commits() == before + 1)
        assert not answer.done()
        world.hub.clear_faults(fault)
        assert answer.result().status == 200


def check_bandwidth(world):
    for call, size in ((World.lfs, len(CONTENT)), (World.put, len(UPLOADED))):
        world.hub.fault(origin="data", bandwidth=size * 4)
        began = time.monotonic()
        answer = call(world)
        assert answer.status == 200 and 0.2 <= time.monotonic() - began < 5
    world.hub.fault("/info/refs", bandwidth=5000)
    assert world.fetch().body.endswith(b"0000")


def check_cut_after(world):
    world.hub.fault(origin="data", cut_after=10)
    with pytest.raises(http.client.IncompleteRead, match="10 bytes read, 990 more"):
        world.lfs()
    assert world.hub.requests(origin="data")[-1]["sent"] == 10
    world.hub.fault("/info/refs", cut_after=10)
    with pytest.raises(http.client.IncompleteRead):
        world.fetch()
    world.hub.fault("/commit/", cut_after=0)
    before = world.commits()
    assert isinstance(attempt(world.commit), BROKEN) and world.commits() == before + 1


def check_reset(world):
    before = world.commits()
    world.hub.fault("/commit/", reset=True)
    with pytest.raises(ConnectionResetError):
        world.commit()
    assert world.commits() == before


def check_reset_after(world):
    for origin, method, target in (
        (world.hub.data, "GET", world.resolve().headers["Location"]),
        (world.hub.endpoint, "GET", f"{world.hub.api(world.repo)}/tree/main"),
    ):
        world.hub.fault(reset_after=10)
        address = urllib.parse.urlsplit(origin)
        with socket.create_connection((address.hostname, address.port)) as sock:
            parts = urllib.parse.urlsplit(target)
            sock.sendall(
                f"{method} {parts.path}?{parts.query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
            )
            received = b""
            with pytest.raises(ConnectionResetError):
                while piece := sock.recv(65536):
                    received += piece
        assert (
            received == b"" or len(received.partition(b"\r\n\r\n")[2]) <= 10
        )  # a reset may overtake the bytes


def check_lose_answer(world):
    before = world.commits()
    world.hub.fault("/commit/", lose_answer=True)
    with pytest.raises(ConnectionError):
        world.commit()
    assert world.commits() == before + 1
    assert world.hub.requests()[-1]["status"] is None


def check_lose_answer_status(world):
    before = world.commits()
    world.hub.fault("/commit/", lose_answer_status=504)
    assert world.commit().status == 504
    assert world.commits() == before + 1


def check_stall(world):
    before = world.commits()
    fault = world.hub.fault("/commit/", stall=True, times=-1)
    with socket.create_connection(world.hub.endpoint.removeprefix("http://").split(":")) as sock:
        sock.sendall(
            f"POST {world.hub.api(world.repo)}/commit/main HTTP/1.1\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        world.hub.wait_for(lambda seen: seen[-1]["fault"] == fault)
    world.hub.wait_for(lambda seen: seen[-1]["end"])  # who leaves before has changed nothing
    answer = in_background(world, world.commit, fault, lambda item: item["end"] is None)
    assert answer.status == 200 and world.commits() == before + 1


def check_stall_after(world):
    fault = world.hub.fault(origin="data", stall_after=10)
    answer = in_background(world, world.lfs, fault, lambda item: item["sent"] == 10)
    assert answer.body == CONTENT


def check_twice(world):
    before = world.commits()
    world.hub.fault("/commit/", twice=True)
    answer = world.commit()
    assert answer.status == 200 and world.commits() == before + 2
    assert answer.json()["commitOid"] == world.head()
    world.hub.fault("/objects/batch", twice=True)
    assert len(world.batch().json()["objects"]) == 1
    world.hub.fault(origin="data", method="PUT", twice=True)
    assert world.put().status == 200
    world.hub.fault("/lfs/", twice=True)
    assert world.lfs().body == CONTENT


def check_late_ms(world):
    before = world.commits()
    fault = world.hub.fault("/commit/", late_ms=60_000)
    with pytest.raises(ConnectionError):
        world.commit()
    assert world.commits() == before
    world.hub.clear_faults(fault)  # it is not waited for any longer
    world.hub.wait_for(lambda seen: seen[-1]["end"])
    assert world.commits() == before + 1


def check_move_head(world):
    for call in (World.commit, World.listing, World.lfs, World.batch, World.put):
        before = world.commits()
        world.hub.fault(ROUTES[call], move_head="theirs.txt")
        assert call(world).status == 200
        assert "Somebody else's push" in dict(
            world.hub.history(world.repo)
        ).values() and world.commits() == before + (2 if call is World.commit else 1), call
    assert world.hub.content(world.repo, "theirs.txt") == b"pushed by somebody else\n"


def check_wrong_range(world):
    world.hub.fault(origin="data", wrong_range=100)
    answer = world.lfs(Range="bytes=10-19")
    assert (answer.status, answer.body, answer.headers["Content-Range"]) == (
        206,
        CONTENT[10:20],
        "bytes 110-119/1000",
    )
    world.hub.fault("/tree/", wrong_range=100)
    assert world.listing().headers["Content-Range"].startswith("bytes 100-")


def check_wrong_length(world):
    world.hub.fault(origin="data", wrong_length=100)
    with pytest.raises(http.client.IncompleteRead, match="1000 bytes read, 100 more"):
        world.lfs()
    world.hub.fault(origin="data", wrong_length=-100)
    assert world.lfs().body == CONTENT[:900]
    world.hub.fault("/info/refs", wrong_length=1)
    with pytest.raises(http.client.IncompleteRead):
        world.fetch()


def check_flip_byte(world):
    for offset in (0, 999):
        world.hub.fault(origin="data", flip_byte=offset)
        body = world.lfs().body
        assert [at for at in range(1000) if body[at] != CONTENT[at]] == [offset] and len(body) == 1000
    world.hub.fault(origin="data", method="PUT", flip_byte=1000)
    assert world.put().status == 400 and world.put().status == 200  # the storage compares digests
    world.hub.fault("/tree/", flip_byte=7)
    with pytest.raises(UnicodeDecodeError):
        world.listing().json()


def check_expired_signature(world):
    world.hub.fault(origin="data", expired_signature=True)
    answer = world.lfs()
    assert (answer.status, b"Request has expired" in answer.body) == (403, True)
    world.hub.fault("/resolve/", expired_signature=True)
    assert world.lfs().status == 403
    world.hub.fault("/objects/batch", expired_signature=True)
    assert world.put().status == 403
    assert world.put().status == 200


def check_portal(world):
    for call in (World.listing, World.commit, World.lfs):
        before = world.commits()
        world.hub.fault(ROUTES[call], portal=True)
        answer = call(world)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert b"<html>" in answer.body and world.commits() == before


def check_small_pages(world):
    world.hub.fault("/tree/", small_pages=2)
    answer = world.listing()
    assert len(answer.json()) == 2 and 'rel="next"' in answer.headers["Link"]
    world.hub.fault("/commits/", small_pages=1)
    assert len(world.hub.call("GET", f"{world.hub.api(world.repo)}/commits/main")) == 1


def check_empty_listing(world):
    world.hub.fault("/tree/", small_pages=2, empty_listing=True)
    answer = world.listing()
    assert (answer.status, answer.json(), answer.headers["Link"]) == (200, [], None)
    world.hub.fault("/preupload/", empty_listing=True)
    assert world.preupload().json() == {"files": [], "commitOid": world.head()}


def check_gzip(world):
    content = world.hub.content(world.repo, "t.txt")
    world.hub.fault("resolve-cache", gzip="length")
    answer = world.regular()
    assert answer.headers["Content-Encoding"] == "gzip" and gzip.decompress(answer.body) == content
    assert int(answer.headers["Content-Length"]) == len(answer.body) < len(content)
    world.hub.fault("resolve-cache", gzip="length")
    part = world.regular(Range="bytes=2-9")
    assert (part.status, part.body) == (206, answer.body[2:10])
    assert part.headers["Content-Range"] == f"bytes 2-9/{len(answer.body)}"
    world.hub.fault("resolve-cache", gzip="chunked")
    whole = world.regular(Range="bytes=2-9")
    assert (whole.status, whole.headers["Content-Length"], gzip.decompress(whole.body)) == (
        200,
        None,
        content,
    )
    assert whole.headers["ETag"].startswith('W/"')
    world.hub.fault("/commit/", gzip="chunked")
    assert json.loads(gzip.decompress(world.commit().body))["success"]
    world.hub.fault("/lfs/", gzip="length")
    assert world.lfs(Range="bytes=0-9").body == CONTENT[:10]  # not text


@pytest.mark.parametrize("name", ACTIONS)
def test_what_it_does(world, name):
    globals()["check_" + name](world)


# How faults are chosen


def test_skip_times_and_method(hub, repo):
    fault = hub.fault("/refs$", method="GET", skip=1, times=2, status=503)
    assert [hub.request("GET", f"{hub.api(repo)}/refs").status for _ in range(4)] == [200, 503, 503, 200]
    assert hub.faults()[0]["hits"] == 2
    hub.clear_faults(fault)
    assert hub.faults() == []


def test_several_actions_in_one_fault(world):
    world.hub.fault(origin="data", delay_ms=100, flip_byte=3, cut_after=10)
    with pytest.raises(http.client.IncompleteRead) as error:
        world.lfs()
    assert error.value.partial == bytes([0, 1, 2, 3 ^ 0x80, 4, 5, 6, 7, 8, 9])


def test_a_refused_upload_leaves_the_connection_usable(world):
    """An early answer to a large body must reach the client."""
    world.hub.fault(origin="data", method="PUT", status=503)
    data = os.urandom(3_000_000)
    item = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    href = world.hub.call(
        "POST", f"/{world.repo}.git/info/lfs/objects/batch", {"operation": "upload", "objects": [item]}
    )["objects"][0]["actions"]["upload"]["href"]
    assert [world.hub.request("PUT", href, data, token=None).status for _ in range(2)] == [503, 200]


def test_nonsense_is_refused(hub):
    for fault in ({"action": {"explode": 1}}, {"path": "["}, {"action": {}}, {"times": 1}):
        assert hub.request("POST", "/_test/faults", fault, token=None).status == 400


# The gzip trap as a mode of the whole Hub


@pytest.mark.parametrize("mode", ["chunked", "length"])
def test_gzip_only_for_those_who_allow_it(world, mode):
    world.hub.config(gzip=mode)
    content = world.hub.content(world.repo, "t.txt")
    for value in (None, "identity", "gzip;q=0, identity", "deflate"):
        answer = world.regular(**({"Accept-Encoding": value} if value else {}))
        assert (answer.headers["Content-Encoding"], answer.body) == (None, content)
    for value in ("gzip", "deflate, gzip;q=0.5", "*"):
        answer = world.regular(**{"Accept-Encoding": value, "Range": "bytes=10-19"})
        assert (answer.headers["Content-Encoding"], answer.status) == (
            "gzip",
            200 if mode == "chunked" else 206,
        )
        assert answer.body != content[10:20]
