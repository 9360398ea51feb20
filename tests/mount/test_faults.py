"""Every kind of fault of the test Hub at every kind of call that hugfs makes: the right errno, or nothing.

A cell is one fault at one call: met once, and then on and on until it is cleared. Whatever it is, no wrong
byte may be read, no file be lost, nothing be published twice, and all is well when the fault is gone. The
cells of a fault run at once, each with a mount and a repository of its own; the table at the end has a line
for each. ONCE and LASTING list the cells in which a program may see an error; hugfs gets over all others.
"""

import concurrent.futures
import json
import os
import time

import pytest
from faults import ACTIONS

import harness
from harness import noise

MIB = 1 << 20
LASTING_S = 2  # how long a fault lasts that is met on and on
STALL_S = 25  # then a stalled request goes on: longer than hugfs waits with what it may repeat
CELLS = {  # call: (origin, method, what its target looks like)
    "list": ("hub", "GET", "{id}/tree/"),
    "regular": ("hub", "GET", "({id}/resolve|resolve-cache/models/{id})/.*[.]txt"),
    "resolve": ("hub", "GET", "({id}/resolve|resolve-cache/models/{id})/.*[.]bin"),
    "lfs": ("data", "GET", "/lfs/{uid}/"),
    "preupload": ("hub", "POST", "{id}/preupload/"),
    "batch": ("hub", "POST", "{id}[.]git/info/lfs/objects/batch"),
    "put": ("data", "PUT", "/lfs/{uid}/"),
    "part": ("data", "PUT", "/uploads/{uid}"),
    "completion": ("hub", "POST", "/complete_multipart[?]uploadId={uid}"),
    "verify": ("hub", "POST", "{id}[.]git/info/lfs/objects/verify"),
    "commit": ("hub", "POST", "{id}/commit/"),
}
READS = {"list": "d{}", "regular": "t{}.txt", "resolve": "w{}.bin", "lfs": "w{}.bin"}
SIZES = {"part": 5 * MIB // 2, "completion": 5 * MIB // 2, "preupload": 1000, "commit": 1000}  # else 600,000
ONCE = {  # what is no JSON, or cannot be true, is not asked for again
    ("flip_byte", "list"): "EIO",
    ("portal", "list"): "EIO",
    ("empty_listing", "list"): "EIO",
}
LASTING = {
    **ONCE,
    ("flip_byte", "regular"): "EIO",
    ("flip_byte", "lfs"): "EIO",
    ("portal", "regular"): "EIO",
    ("portal", "resolve"): "EIO",
    ("portal", "lfs"): "EIO",
    ("wrong_range", "regular"): "EIO",
    ("wrong_range", "lfs"): "EIO",
    ("expired_signature", "resolve"): "EACCES",
    ("expired_signature", "lfs"): "EACCES",
    ("expired_signature", "batch"): "EACCES",
    ("expired_signature", "put"): "EACCES",
    ("expired_signature", "part"): "EACCES",
}
REFUSED_AT_START = {"portal", "flip_byte"}  # the answer makes no sense
OUTCOMES = []
READ = """
    try:
        if sys.argv[1].startswith('main/d'):
            right = sorted(os.listdir(sys.argv[1])) == ['a', 'b', 'c']
        else:
            right = open(sys.argv[1], 'rb').read() == sys.stdin.buffer.read()
        print('0' if right else 'wrong')
    except OSError as error:
        print(errno.errorcode[error.errno])
    """
WRITE = """
    file = open(sys.argv[1], 'wb')
    file.write(sys.stdin.buffer.read())
    print(outcome(lambda: (file.flush(), os.fsync(file.fileno()))))
    """


class Cell:
    """One mount of one repository, and one kind of call that meets the fault."""

    def __init__(self, box, fault, call):
        self.box, self.hub, self.fault, self.call = box, box.hub, fault, call
        size = SIZES.get(call, 600_000)
        self.contents = [noise(size, f"{fault} {call} {number}") for number in (1, 2)]
        if call == "regular":
            self.contents = [content[:3000].hex().encode() for content in self.contents]
        self.repo = box.repo(self.files() if call in READS else {"old.txt": b"old"})
        self.mount = box.mount(
            self.repo.uri,
            "commit_delay=0.2",
            "fsync_timeout=40",
            f"cache_dir={box.dir}/cache-{call}",
            name=f"mount-{call}",
        )
        self.mount.ls("main")

    def files(self):
        if self.call == "list":
            return {f"d{number}/{name}": b"%d" % number for number in (1, 2) for name in "abc"}
        return {READS[self.call].format(number): content for number, content in enumerate(self.contents, 1)}

    def add_fault(self, times):
        origin, method, path = CELLS[self.call]
        with open(os.path.join(self.hub.git_dir(self.repo.id), "hub.json"), encoding="utf-8") as file:
            uid = json.load(file)["_id"]
        return self.hub.fault(
            path.format(id=self.repo.id, uid=uid),
            method=method,
            origin=origin,
            times=times,
            **{self.fault: ACTIONS[self.fault].example},
        )

    def hits(self, number):
        return next(item["hits"] for item in self.hub.faults() if item["id"] == number)

    def act(self, number):
        """The call, as a program makes it: the errno it sees."""
        if self.call in READS:
            return self.mount.py(
                READ, "main/" + READS[self.call].format(number), stdin=self.contents[number - 1], timeout=90
            ).strip()
        return self.mount.py(
            WRITE, f"main/new{number}.bin", stdin=self.contents[number - 1], timeout=90
        ).strip()

    def judge(self, number):
        """All is well: the bytes are right, nothing is lost, nothing is there twice."""
        if self.call in READS:
            assert self.act(number) == "0", "it does not heal"
            return
        wanted = {"old.txt": b"old", **{f"new{n}.bin": self.contents[n - 1] for n in range(1, number + 1)}}
        harness.eventually(lambda: set(wanted) <= set(self.repo.paths()), 60, "the publication")
        ours = [commit for commit, title in self.hub.history(self.repo.id) if title != "Somebody else's push"]
        assert len(ours) == 2 + number, f"{len(ours) - 2} commits instead of {number}"
        assert {path: data for path, data in self.repo.files().items() if path != "theirs.txt"} == wanted

    def meet(self, number, times, lasting):
        """The call with the fault: the errno that a program sees, and how long it took."""
        began = time.monotonic()
        fault = self.add_fault(times)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            outcome = pool.submit(self.act, number)
            try:
                outcome.result(lasting)
            except concurrent.futures.TimeoutError:
                assert self.hits(fault) >= 1, f"{self.call} never met the fault"
                self.hub.clear_faults(fault)
            outcome = outcome.result()
        if time.monotonic() < began + lasting:
            assert self.hits(fault) >= 1, f"{self.call} never met the fault"
        self.hub.clear_faults(fault)
        seconds = time.monotonic() - began
        self.judge(number)
        return outcome, seconds

    def run(self):
        once = self.meet(1, 1, STALL_S)
        lasting = self.meet(2, -1, LASTING_S)
        self.mount.unmount()
        if self.call not in READS:
            self.judge(2)
        return once, lasting


def run_cell(box, fault, call):
    """What a program saw, once and on and on; or what was wrong."""
    try:
        once, lasting = Cell(box, fault, call).run()
    except AssertionError as error:
        OUTCOMES.append((fault, call, str(error).partition("\n")[0][:150], ""))
        return "wrong: " + str(error), ""
    OUTCOMES.append(
        (
            fault,
            call,
            *(f"{errno if errno != '0' else '-':9} {seconds:4.1f} s" for errno, seconds in (once, lasting)),
        )
    )
    return once[0], lasting[0]


@pytest.fixture(scope="module", autouse=True)
def table(request):
    """The table of all cells, shown at the end."""
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    with capture.global_and_fixture_disabled():
        reporter.write_line("\n" + f"{'fault':20} {'call':12} {'once':17} until it was cleared")
        for fault, call, once, lasting in OUTCOMES:
            reporter.write_line(f"{fault:20} {call:12} {once:17} {lasting}")


@pytest.mark.limit(150)
@pytest.mark.parametrize("fault", ACTIONS)
def test_a_fault_at_every_call(box, hub, fault):
    hub.config(multipart_threshold=MIB, chunk_size=MIB)
    box.expect(r"(warn|err) ")
    with concurrent.futures.ThreadPoolExecutor(len(CELLS)) as pool:
        outcomes = dict(zip(CELLS, pool.map(lambda call: run_cell(box, fault, call), CELLS)))
    unexpected = {
        call: seen
        for call, seen in outcomes.items()
        if seen[0] not in ("0", ONCE.get((fault, call))) or seen[1] not in ("0", LASTING.get((fault, call)))
    }
    assert unexpected == {}


def test_an_empty_root_is_not_believed_for_long(mount, box, hub):
    """A repository without a file may exist: it is shown, but the next mount asks again."""
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri)
    hub.fault(f"{repo.id}/tree/", empty_listing=True, times=-1)
    assert m.ls("main") == []
    hub.clear_faults()
    m.unmount()
    m.restart()
    assert m.ls("main") == [".gitattributes", "a.txt"]


def start_with(box, fault):
    """Mount while the first question about the repository meets the fault: "0", or why it was refused."""
    repo = box.repo({"a.txt": fault.encode()})
    number = box.hub.fault(f"/api/models/{repo.id}", times=1, **{fault: ACTIONS[fault].example})
    try:
        m = box.mount(repo.uri, f"cache_dir={box.dir}/cache-{fault}", name=f"start-{fault}")
        assert m.read("main/a.txt") == fault.encode()
        outcome = "0"
    except harness.StartError as error:
        outcome = error.text
        box.mounts.remove(
            next(m for m in box.mounts if m.dir.endswith("/start-" + fault))
        )  # nothing was mounted
        assert len([line for line in outcome.splitlines() if not harness.LOG_LINE.match(line)]) == 1, outcome
        assert repo.id in outcome or box.hub.endpoint in outcome
    assert next(item["hits"] for item in box.hub.faults() if item["id"] == number) == 1
    return outcome


@pytest.mark.limit(100)
def test_a_fault_at_the_start(box, hub):
    """The mount comes all the same; an answer that makes no sense is refused with one sentence."""
    box.expect(r"(warn|err) ")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = dict(zip(ACTIONS, pool.map(lambda fault: start_with(box, fault), ACTIONS)))
    assert {
        fault: text for fault, text in outcomes.items() if text != "0" and fault not in REFUSED_AT_START
    } == {}
    assert all(outcomes[fault] != "0" for fault in REFUSED_AT_START)
