"""Bytes from the data origin: what is asked for, how often, and what happens when the origin stalls, drips, lies or
dies. Every test looks at the requests that arrived there.
"""

import hashlib
import random
import time

import harness
from harness import data_bytes, data_requests, noise

MIB = 1 << 20


def resolves(hub, seq):
    return [item for item in hub.requests(since=seq, origin="hub") if "/resolve" in item["path"]]


# Wrong bytes


def test_a_flipped_byte_in_a_file_of_one_block_is_not_seen(mount, box, hub):
    content = noise(MIB - 5)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", flip_byte=1000, times=1)
    box.expect("do not have this hash")
    seq = hub.last_seq()
    assert m.read("main/w.bin") == content
    assert len(data_requests(hub, seq)) == 2


def test_a_flipped_byte_ends_the_read_and_the_next_open_is_right(mount, box, hub):
    """The first blocks were read before the last one showed that they were wrong: the reader must not think that it
    has the file, and what the kernel keeps of it must go."""
    content = noise(4 * MIB + 99)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", flip_byte=1000, times=1)
    box.expect("do not have this hash|given up")
    assert m.outcome("open('main/w.bin', 'rb').read()") == "EIO"
    assert m.read("main/w.bin") == content


def test_bytes_that_are_always_wrong_are_an_error(mount, box, hub):
    m = mount(box.repo({"w.bin": noise(3 * MIB), "small.bin": noise(MIB, 2)}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", flip_byte=5, times=-1)
    box.expect("do not have this hash|given up")
    assert m.outcome("open('main/w.bin', 'rb').read()") == "EIO"
    assert m.outcome("open('main/small.bin', 'rb').read()") == "EIO"
    hub.clear_faults()
    assert m.read("main/w.bin") == noise(3 * MIB)
    assert m.read("main/small.bin") == noise(MIB, 2)


# Requests


RANDOM_READS = """
    import hashlib, random
    fd = os.open('main/w.bin', os.O_RDONLY)
    size, dice, digest = os.fstat(fd).st_size, random.Random(7), hashlib.sha256()
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for _ in range(10_000):
        digest.update(os.pread(fd, 4096, dice.randrange(size - 4096)))
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    print(digest.hexdigest())
    """


def test_ten_thousand_random_reads(mount, box, hub):
    """Two resolves at most and every block once; a second pass costs nothing, nor does a second mount."""
    content = noise(96 * MIB)
    digest, dice = hashlib.sha256(), random.Random(7)
    for _ in range(10_000):
        at = dice.randrange(len(content) - 4096)
        digest.update(content[at:at + 4096])
    repo = box.repo({"w.bin": content})
    m = mount(repo.uri)
    m.stat("main/w.bin")
    seq = hub.last_seq()
    assert m.py(RANDOM_READS).strip() == digest.hexdigest()
    assert len(resolves(hub, seq)) <= 2
    assert len(data_requests(hub, seq)) <= 96 and data_bytes(hub, seq) <= len(content)
    seq = hub.last_seq()
    assert m.py(RANDOM_READS).strip() == digest.hexdigest()
    other = mount(repo.uri)
    assert other.py(RANDOM_READS).strip() == digest.hexdigest()
    assert data_requests(hub, seq) == [] and resolves(hub, seq) == []


def test_first_bytes_of_a_large_file(mount, box, hub):
    """The round trips that the protocol needs, and one block."""
    repo = box.repo()
    hub.lfs_sparse(repo.id, "big.bin", 10_000_000_000, seeds={0: b"begin"})
    m = mount(repo.uri)
    m.stat("main/big.bin")
    seq = hub.last_seq()
    out = m.py("fd = os.open('main/big.bin', os.O_RDONLY); data = os.read(fd, 4096); print(data[:5], len(data))")
    assert out.strip() == "b'begin' 4096"
    requests = [item for item in hub.requests(since=seq) if "/api/" not in item["path"]]
    assert [item["origin"] for item in requests] == ["hub", "data"]
    assert data_bytes(hub, seq) <= MIB


def test_headers_of_safetensors_files(mount, box, hub):
    """One block of each file at most, whatever the length of its header."""
    repo = box.repo()
    for number in range(50):
        header = b"{" + b" " * (1000 + number * 5000) + b"}"
        hub.lfs_sparse(repo.id, f"{number}.safetensors", 40 * MIB,
                       seeds={0: len(header).to_bytes(8, "little") + header})
    m = mount(repo.uri)
    m.ls("main")
    seq = hub.last_seq()
    out = m.py("""
        import json
        for number in range(50):
            with open(f'main/{number}.safetensors', 'rb') as file:
                json.loads(file.read(int.from_bytes(file.read(8), 'little')))
        print('read')
        """)
    assert out.strip() == "read"
    requests = data_requests(hub, seq)
    assert len(requests) == 50 and all(item["range"] == "bytes=0-1048575" for item in requests)


def test_the_end_of_a_zip_file_comes_with_its_second_block(mount, box, hub):
    repo = box.repo({"w.zip": noise(20 * MIB), "w.bin": noise(20 * MIB, 2)})
    m = mount(repo.uri)
    m.ls("main")
    for name, blocks in (("w.zip", {0, 10, 19}), ("w.bin", {0, 10})):
        seq = hub.last_seq()
        m.py("""
            fd = os.open(sys.argv[1], os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            os.pread(fd, 100, 0)
            os.pread(fd, 100, 10 << 20)
            """, "main/" + name)
        hub.wait_for(lambda seen: {int(item["range"][6:].split("-")[0]) // MIB for item in seen
                                   if item["origin"] == "data" and item["end"]} == blocks, since=seq)


def test_a_url_is_renewed_before_it_ends(mount, box, hub):
    """No request is ever sent with a URL that is about to end, and one renewal serves all who wait for it."""
    hub.config(signature_lifetime_s=62)  # used for 2 s, see hub.h
    content = noise(24 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    out = m.start_py("""
        import concurrent.futures
        fd = os.open('main/w.bin', os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        say(os.pread(fd, 4, 0))
        hear()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            say(list(pool.map(lambda at: os.pread(fd, 4, at << 20), range(2, 24, 2))))
        """)
    began = time.monotonic()
    assert out.expect() == repr(content[:4])
    harness.eventually(lambda: time.monotonic() - began > 3)
    seq = hub.last_seq()
    out.tell()
    assert out.expect() == repr([content[at * MIB:at * MIB + 4] for at in range(2, 24, 2)])
    out.finish()
    assert len(resolves(hub, seq)) == 1
    assert {item["status"] for item in data_requests(hub, seq)} == {206}


def test_a_file_outlives_the_commit_that_it_was_seen_in(mount, box, hub):
    """A super-squash takes the old commits away; the same bytes are in the new one."""
    content = noise(2 * MIB)
    repo = box.repo({"w.bin": content, "d/a.txt": b"text"})
    m = mount(repo.uri, "poll=0.3")
    m.sh("stat main/w.bin main/d/a.txt >/dev/null")
    hub.squash(repo.id)
    hub.prune(repo.id)
    box.expect("404|RevisionNotFound|not found")
    harness.eventually(lambda: m.outcome("open('main/w.bin', 'rb').read()") == "0", 10, "the new commit")
    assert m.read("main/w.bin") == content
    assert m.read("main/d/a.txt") == b"text"


# Slow and dead connections


def test_a_dripping_connection_is_overtaken(mount, box, hub):
    """It brings bytes, so no time-out ends it; but a reader waits."""
    content = noise(3 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", method="GET", bandwidth=20_000, times=1)
    began = time.monotonic()
    assert m.py("fd = os.open('main/w.bin', os.O_RDONLY); print(os.pread(fd, 4, 1 << 20))").strip() == \
        repr(content[MIB:MIB + 4])
    assert time.monotonic() - began < 15  # 52 s at that speed


def test_a_cut_body_goes_on_where_it_stopped(mount, box, hub):
    """Not at the beginning of its range: no byte crosses the wire twice."""
    content = noise(2 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", method="GET", cut_after=700_000, times=1)
    box.expect("warn")
    seq = hub.last_seq()
    assert m.py("fd = os.open('main/w.bin', os.O_RDONLY); print(os.pread(fd, 4, 0))").strip() == repr(content[:4])
    assert [item["range"] for item in data_requests(hub, seq)] == ["bytes=0-1048575", "bytes=700000-1048575"]


LATENCIES = """
    def measure(call):
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    warm = os.open('main/warm.bin', os.O_RDONLY)
    def cached():
        os.posix_fadvise(warm, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(warm, 4096, 1 << 20)
    calls = [lambda: os.listdir('main/d'), lambda: os.stat('main/cold.bin'), cached, lambda: os.stat('main/d/5.txt')]
    times = sorted(measure(calls[number % len(calls)]) for number in range(2000))
    print(times[len(times) * 99 // 100])
    """


def rss_anon(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("RssAnon")).split()[1]) << 10


def test_stalled_data_holds_up_nothing_else(mount, box, hub):
    """64 readers wait for data that does not come: names and cached bytes are as quick as before."""
    files = {"warm.bin": noise(2 * MIB), **{f"d/{number}.txt": b"x" for number in range(50)}}
    repo = box.repo(files)
    hub.lfs_sparse(repo.id, "cold.bin", 1000 * MIB)
    m = mount(repo.uri)
    m.sh("cat main/warm.bin >/dev/null; ls -l main main/d >/dev/null")
    usual = max(float(m.py(LATENCIES)) for _ in range(2))
    hub.fault(origin="data", stall=True, times=-1)
    seq = hub.last_seq()
    readers = [m.start_py("say('start'); os.pread(os.open('main/cold.bin', os.O_RDONLY), 1, int(sys.argv[1]))",
                          str(number * 15 * MIB)) for number in range(64)]
    for reader in readers:
        reader.expect("start")
    hub.wait_for(lambda seen: len([item for item in seen if item["origin"] == "data"]) >= 8, since=seq)
    stalled = min(float(m.py(LATENCIES)) for _ in range(3))
    assert stalled <= max(3 * usual, 0.005)
    for reader in readers:
        reader.signal(9)
    for reader in readers:
        assert reader.wait(5) == -9


def test_cached_reads_pass_any_number_of_stalled_readers(mount, box, hub):
    """The kernel lets only so many reads wait at once: 300 that are stalled must not be all of them."""
    warm = noise(2 * MIB)
    repo = box.repo({"warm.bin": warm})
    hub.lfs_sparse(repo.id, "cold.bin", 1000 * MIB)
    m = mount(repo.uri)
    assert m.read("main/warm.bin") == warm
    hub.fault(origin="data", stall=True, times=-1)
    readers = m.start_py("""
        import threading
        cold = os.open('main/cold.bin', os.O_RDONLY)
        for number in range(300):
            threading.Thread(target=os.pread, args=(cold, 128 << 10, number * 3 << 20), daemon=True).start()
        def reading():
            tasks = [open(f'/proc/self/task/{task}/syscall').read() for task in os.listdir('/proc/self/task')]
            return sum(text.startswith('17 ') for text in tasks)
        while reading() < 300:
            time.sleep(0.01)
        say('waiting')
        hear()
        """)
    readers.expect("waiting")
    m.py("os.posix_fadvise(os.open('main/warm.bin', os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)")
    assert m.read("main/warm.bin", timeout=10) == warm
    readers.signal(9)
    assert readers.wait(5) == -9


def test_memory_of_many_readers(mount, box, hub):
    """What is in flight has a budget, whatever the number of readers."""
    budget = 32 * MIB
    repo = box.repo()
    hub.lfs_sparse(repo.id, "cold.bin", 2560 * MIB)
    m = mount(repo.uri, "inflight=32M", "workers=64")
    m.stat("main/cold.bin")
    with open(f"/proc/{m.process.pid}/maps", encoding="utf-8") as file:
        is_sanitized = "san.so" in file.read()  # such a build keeps what was freed, and shadows of all
    hub.fault(origin="data", stall_after=900_000, times=-1)
    seq = hub.last_seq()
    reader = m.start_py("""
        import threading
        fd = os.open('main/cold.bin', os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        done = threading.Semaphore(0)
        def read(number):
            try:
                os.pread(fd, 1 << 20, number * 10 << 20)
            finally:
                done.release()
        for number in range(256):
            threading.Thread(target=read, args=[number], daemon=True).start()
        say('started')
        for _ in range(256):
            done.acquire()
        say('done')
        """)
    reader.expect("started")
    hub.wait_for(lambda seen: len([item for item in seen if item["origin"] == "data" and item["sent"]]) >= 30, since=seq)
    peak = rss_anon(m.process.pid)
    hub.clear_faults()
    while reader.process.poll() is None and not reader.lines:
        peak = max(peak, rss_anon(m.process.pid))
        time.sleep(0.01)
    reader.expect("done", timeout=50)
    reader.finish()
    assert is_sanitized or peak <= budget + 64 * MIB


# Two daemons on one cache


def test_two_mounts_fetch_a_file_once(mount, box, hub):
    content = noise(64 * MIB)
    repo = box.repo({"w.bin": content})
    mounts = [mount(repo.uri), mount(repo.uri)]
    for m in mounts:
        m.stat("main/w.bin")
    seq = hub.last_seq()
    readers = [m.start_py("""
        import hashlib
        say('ready')
        hear()
        say(hashlib.sha256(open('main/w.bin', 'rb').read()).hexdigest())
        """) for m in mounts]
    for reader in readers:
        reader.expect("ready")
    for reader in readers:
        reader.tell()
    digest = hashlib.sha256(content).hexdigest()
    assert [reader.expect() for reader in readers] == [digest, digest]
    for reader in readers:
        reader.finish()
    assert data_bytes(hub, seq) == len(content)


def test_the_other_completes_what_a_killed_daemon_fetched(mount, box, hub):
    content = noise(20 * MIB)
    repo = box.repo({"w.bin": content})
    one, two = mount(repo.uri), mount(repo.uri)
    one.stat("main/w.bin")
    two.stat("main/w.bin")
    hub.fault(origin="data", stall_after=400_000, times=-1)
    read = "say('start'); say(outcome(lambda: say(os.pread(os.open('main/w.bin', os.O_RDONLY), 4, 5 << 20))))"
    seq = hub.last_seq()
    first = one.start_py(read)
    first.expect("start")
    hub.wait_for(lambda seen: [item for item in seen if item["origin"] == "data" and item["sent"]], since=seq)
    second = two.start_py(read)
    second.expect("start")
    one.kill()
    hub.wait_for(lambda seen: len([item for item in seen if item["origin"] == "data"]) == 2, since=seq)
    hub.clear_faults()
    assert second.expect() == repr(content[5 * MIB:5 * MIB + 4])
    second.finish()
    assert first.expect() != "0"
    first.finish()
    assert two.read("main/w.bin") == content
