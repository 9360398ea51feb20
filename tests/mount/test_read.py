"""Bytes: block cache, single flight, signed URLs, pushes by others, permissions, faults of the data origin."""

import hashlib
import os
import time

import pytest

import harness
from harness import data_bytes, data_requests, noise

MIB = 1 << 20


def resolves(hub, seq):
    return [item for item in hub.requests(since=seq, origin="hub")
            if "/resolve/" in item["path"] or "/resolve-cache/" in item["path"]]


def test_one_byte_of_a_large_file(mount, box, hub):
    repo = box.repo()
    size, at = 10_000_000_000, 5_000_000_000
    hub.lfs_sparse(repo.id, "big.bin", size, seeds={at: b"!", 0: b"begin", size - 3: b"end"})
    m = mount(repo.uri)
    assert m.stat("main/big.bin").size == size
    read = "fd = os.open('main/big.bin', os.O_RDONLY); print(os.pread(fd, 1, int(sys.argv[1])))"
    seq = hub.last_seq()
    assert m.py(read, str(at)).strip() == "b'!'"
    assert 0 < data_bytes(hub, seq) <= MIB
    seq = hub.last_seq()
    m.py("fd = os.open('main/big.bin', os.O_RDONLY); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)")
    assert m.py(read, str(at)).strip() == "b'!'"
    assert data_requests(hub, seq) == []
    m.unmount()
    m.restart()
    seq = hub.last_seq()
    assert m.py(read, str(at)).strip() == "b'!'"
    assert data_requests(hub, seq) == []
    assert m.py("fd = os.open('main/big.bin', os.O_RDONLY); print(os.pread(fd, 9, int(sys.argv[1])))",
                str(size - 3)).strip() == "b'end'"


def test_opening_downloads_nothing(mount, box, hub):
    m = mount(box.repo({"w.bin": noise(3 * MIB)}).uri)
    m.ls("main")
    seq = hub.last_seq()
    m.py("fd = os.open('main/w.bin', os.O_RDONLY); os.fstat(fd); os.close(fd)")
    assert data_requests(hub, seq) == [] and resolves(hub, seq) == []


def test_ten_readers_of_a_cold_block_make_one_get(mount, box, hub):
    content = noise(4 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", delay_ms=500, times=-1)
    seq = hub.last_seq()
    out = m.py("""
        import concurrent.futures, hashlib
        def read(_):
            fd = os.open('main/w.bin', os.O_RDONLY)
            return os.pread(fd, 1 << 16, 1 << 21)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            print(*{hashlib.sha256(data).hexdigest() for data in pool.map(read, range(10))})
        """)
    assert out.split() == [hashlib.sha256(content[2 * MIB:2 * MIB + (1 << 16)]).hexdigest()]
    assert len(data_requests(hub, seq)) == 1
    assert len(resolves(hub, seq)) == 1


def test_one_resolve_per_file_and_url_lifetime(mount, box, hub):
    content = noise(24 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    seq = hub.last_seq()
    for at in (23, 5, 11, 2, 17):
        assert m.py("fd = os.open('main/w.bin', os.O_RDONLY); print(os.pread(fd, 4, int(sys.argv[1])))",
                    str(at * MIB)).strip() == repr(content[at * MIB:at * MIB + 4])
    assert len(data_requests(hub, seq)) >= 5
    assert len(resolves(hub, seq)) == 1


def test_an_expired_url_is_resolved_again(mount, box, hub):
    content = noise(3 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    read = "fd = os.open('main/w.bin', os.O_RDONLY); print(os.pread(fd, 4, int(sys.argv[1])))"
    m.py(read, "0")
    hub.fault(origin="data", method="GET", status=403, times=1)
    box.expect(r"403")
    seq = hub.last_seq()
    assert m.py(read, str(2 * MIB)).strip() == repr(content[2 * MIB:2 * MIB + 4])
    assert len(resolves(hub, seq)) == 1
    assert [item["status"] for item in data_requests(hub, seq)] == [403, 206]


def test_an_old_signature_is_not_used_for_long(mount, box, hub):
    hub.config(signature_lifetime_s=900, signature_age_s=860)
    content = noise(6 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    seq = hub.last_seq()
    assert m.read("main/w.bin") == content
    assert {item["status"] for item in data_requests(hub, seq)} <= {200, 206}


def test_a_data_origin_that_refuses_twice_is_eacces(mount, box, hub):
    m = mount(box.repo({"w.bin": noise(2 * MIB)}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", method="GET", status=403, times=-1)
    box.expect(r"403")
    assert m.outcome("open('main/w.bin', 'rb').read()") == "EACCES"
    hub.clear_faults()
    assert len(m.read("main/w.bin")) == 2 * MIB


def test_a_whole_file_is_fetched_once(mount, box, hub):
    content = noise(20 * MIB + 12345)
    m = mount(box.repo({"w.bin": content}).uri)
    seq = hub.last_seq()
    assert m.read("main/w.bin") == content
    assert data_bytes(hub, seq) == len(content)
    seq = hub.last_seq()
    m.py("fd = os.open('main/w.bin', os.O_RDONLY); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)")
    assert m.read("main/w.bin") == content
    assert hub.requests(since=seq, origin="data") == []


def test_mmap_reads(mount, box):
    content = noise(5 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    out = m.py("""
        import hashlib
        with open('main/w.bin', 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            print(hashlib.sha256(view).hexdigest(), len(view))
        """).split()
    assert out == [hashlib.sha256(content).hexdigest(), str(len(content))]


def test_small_and_empty_files(mount, box):
    files = {"a.txt": b"a\n", "empty": b"", "empty.bin": b"", "two/b.txt": b"b" * 70000}
    m = mount(box.repo(files).uri)
    assert {name: data for name, data in m.files("main").items() if name != ".gitattributes"} == files


def test_a_private_repository_with_its_token(mount, box, hub):
    repo = box.repo({"a.txt": b"mine\n", "w.bin": noise(2 * MIB)}, private=True)
    m = mount(repo.uri)
    assert m.read("main/a.txt") == b"mine\n"
    assert m.read("main/w.bin") == noise(2 * MIB)


def test_a_token_from_the_token_file(mount, box, hub):
    repo = box.repo({"a.txt": b"mine\n"}, private=True)
    folder = box.dir + "/home/hf"
    box.run(["sh", "-c", 'mkdir -p "$0" && cat > "$0/token"', folder], stdin=hub.tokens["user"].encode() + b"\n")
    m = mount(repo.uri, env={"HF_TOKEN": None})
    assert m.read("main/a.txt") == b"mine\n"


def test_a_gated_repository_without_a_grant(mount, box, hub):
    repo = box.repo({"a.txt": b"gated\n", "w.bin": noise(2 * MIB)}, namespace="other")
    hub.set_repo(repo.id, gated="manual")
    m = mount(repo.uri)
    assert m.ls("main") == [".gitattributes", "a.txt", "w.bin"]
    box.expect(r"403")
    assert m.outcome("open('main/a.txt').read()") == "EACCES"
    assert m.outcome("open('main/w.bin', 'rb').read()") == "EACCES"
    hub.set_repo(repo.id, granted=["user"])
    assert m.read("main/a.txt") == b"gated\n"


def test_a_killed_reader_of_a_stalled_download_leaves_at_once(mount, box, hub):
    m = mount(box.repo({"w.bin": noise(4 * MIB)}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", stall=True, times=-1)
    seq = hub.last_seq()
    reader = m.start_py("say('start'); open('main/w.bin', 'rb').read()")
    reader.expect("start")
    hub.wait_for(lambda items: [item for item in items if item["origin"] == "data"], since=seq)
    began = time.monotonic()
    reader.signal(9)
    assert reader.wait(10) == -9
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("number", [9, 10])
def test_an_interrupted_listing_leaves_at_once(mount, box, hub, number):
    """Killed, or with a handler that wants to go on."""
    m = mount(box.repo({"d/e/a.txt": b"a"}).uri)
    m.ls("main")
    hub.fault("/(tree|paths-info)/", stall=True, times=-1)
    seq = hub.last_seq()
    reader = m.start_py("""
        import signal
        class Alarm(Exception): pass
        def ring(*_): raise Alarm
        signal.signal(signal.SIGUSR1, ring)
        say('start')
        try:
            os.listdir('main/d/e')
        except Alarm:
            sys.exit(7)
        """)
    reader.expect("start")
    hub.wait_for(lambda items: [item for item in items if "/d" in item["path"] or "paths" in item["path"]], since=seq)
    began = time.monotonic()
    reader.signal(number)
    assert reader.wait(10) == (-9 if number == 9 else 7)
    assert time.monotonic() - began < 2


def test_names_and_cached_bytes_go_on_while_data_stalls(mount, box, hub):
    m = mount(box.repo({"cold.bin": noise(40 * MIB, 2), "warm.bin": noise(2 * MIB), "d/a.txt": b"a"}).uri)
    m.sh("cat main/warm.bin main/d/a.txt >/dev/null; stat main/cold.bin >/dev/null")
    hub.fault(origin="data", stall=True, times=-1)
    readers = [m.start_py("""
        say('start')
        fd = os.open('main/cold.bin', os.O_RDONLY)
        os.pread(fd, 1, int(sys.argv[1]))
        """, str(at * 2 * MIB)) for at in range(16)]
    for reader in readers:
        reader.expect("start")
    hub.wait_for(lambda items: len([item for item in items if item["origin"] == "data" and item["end"] is None]) >= 4)
    began = time.monotonic()
    m.py("fd = os.open('main/warm.bin', os.O_RDONLY); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)")
    assert m.read("main/warm.bin") == noise(2 * MIB)
    assert m.sh("ls -l main/d; stat main/cold.bin >/dev/null; cat main/d/a.txt").endswith("a")
    assert time.monotonic() - began < 5
    hub.clear_faults()
    for reader in readers:
        reader.finish()


def test_a_push_shows_after_poll_and_open_files_keep_their_bytes(mount, box, hub):
    old, new = noise(3 * MIB, 1), noise(3 * MIB, 2)
    repo = box.repo({"w.bin": old, "a.txt": b"old\n", "gone.txt": b"gone\n"})
    m = mount(repo.uri, "poll=1")
    assert m.read("main/a.txt") == b"old\n"
    reader = m.start_py("""
        import hashlib
        file = open('main/w.bin', 'rb')
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        text = open('main/a.txt', 'rb')
        say(view[:2])
        hear()
        say(hashlib.sha256(view).hexdigest(), hashlib.sha256(file.read()).hexdigest(), text.read())
        """)
    reader.expect()
    repo.push({"w.bin": new, "a.txt": b"new and longer\n", "gone.txt": None, "born.txt": b"born\n"})
    harness.eventually(lambda: m.read("main/a.txt") == b"new and longer\n", 10, "the push")
    assert m.ls("main") == [".gitattributes", "a.txt", "born.txt", "w.bin"]
    assert m.read("main/w.bin") == new
    reader.tell()
    digest = hashlib.sha256(old).hexdigest()
    assert reader.expect() == f"{digest} {digest} b'old\\n'"
    reader.finish()


def test_a_branch_is_not_asked_for_before_poll(mount, box, hub):
    repo = box.repo({"a.txt": b"old\n"})
    m = mount(repo.uri, "poll=600")
    m.read("main/a.txt")
    repo.push({"a.txt": b"new\n"})
    seq = hub.last_seq()
    assert m.read("main/a.txt") == b"old\n"
    assert hub.requests(since=seq) == []


def test_a_body_that_is_cut_is_resumed(mount, box, hub):
    content = noise(3 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", method="GET", cut_after=300_000, times=2)
    box.expect(r"warn")
    assert m.read("main/w.bin") == content


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_failures_are_not_seen(mount, box, hub, status):
    repo = box.repo({"w.bin": noise(2 * MIB), "d/a.txt": b"a"})
    m = mount(repo.uri)
    box.expect(r"warn")
    hub.fault(origin="data", method="GET", status=status, times=2, headers={"Retry-After": "0"})
    hub.fault("/tree/", status=status, times=2, headers={"Retry-After": "0"})
    assert m.read("main/w.bin") == noise(2 * MIB)
    assert m.ls("main/d") == ["a.txt"]


def test_wrong_bytes_are_never_served(mount, box, hub):
    repo = box.repo()
    hub.lfs_sparse(repo.id, "wrong.bin", 200_000, seeds={5: b"these bytes have another digest"})
    m = mount(repo.uri)
    m.stat("main/wrong.bin")
    box.expect(r"wrong\.bin|[0-9a-f]{64}")
    seq = hub.last_seq()
    assert m.outcome("open('main/wrong.bin', 'rb').read()") == "EIO"
    assert len(data_requests(hub, seq)) == 2


def test_a_block_that_rots_on_disk_is_fetched_again(mount, box, hub):
    content = noise(3 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    assert m.read("main/w.bin") == content
    m.unmount()
    spoiled = 0
    for folder, _, names in os.walk(box.dir + "/home/cache/hugfs/obj"):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.getsize(path) == len(content):
                with open(path, "r+b") as file:
                    file.seek(MIB + 7)
                    file.write(b"rotten")
                spoiled += 1
    assert spoiled == 1
    m.restart()
    box.expect(r"warn")
    seq = hub.last_seq()
    assert m.read("main/w.bin") == content
    assert 0 < data_bytes(hub, seq) <= len(content)


def test_a_cache_that_is_gone_costs_only_time(mount, box, hub):
    content = noise(2 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    m.read("main/w.bin")
    m.unmount()
    box.run(["rm", "-rf", box.dir + "/home/cache"])
    m.restart()
    assert m.read("main/w.bin") == content


def test_offline_serves_what_is_cached(mount, box, hub):
    content = noise(2 * MIB)
    repo = box.repo({"w.bin": content, "cold.bin": noise(2 * MIB, 3)})
    m = mount(repo.uri)
    m.read("main/w.bin")
    m.unmount()
    seq = hub.last_seq()
    m.restart("offline")
    assert m.read("main/w.bin") == content
    box.expect(r"offline|cold\.bin|last known state")
    assert m.outcome("open('main/cold.bin', 'rb').read()") == "ENETDOWN"
    assert hub.requests(since=seq) == []


@pytest.mark.parametrize("fault", [{"lose_answer": True}, {"status": 503}, {"stall": True}], ids=lambda fault: [*fault][0])
def test_the_last_known_tree_is_served_while_the_hub_is_away(mount, box, hub, fault):
    m = mount(box.repo({"a.txt": b"a", "w.bin": noise(2 * MIB)}).uri, "poll=0.5")
    m.sh("cat main/a.txt main/w.bin > /dev/null; ls main")
    hub.fault("/api/", times=-1, **fault)
    box.expect(r"warn")
    for limit in (15, 3, 3):
        time.sleep(1.2)  # everything is older than poll=
        began = time.monotonic()
        m.sh("cat main/a.txt main/w.bin > /dev/null; ls main; ! cat main/nope 2>/dev/null")
        assert time.monotonic() - began < limit


def test_the_official_clients_cache_counts(mount, box, hub):
    content = noise(3 * MIB)
    repo = box.repo({"w.bin": content})
    cache = box.dir + "/home/hf/hub"
    harness.snapshot_download(hub, repo, cache_dir=cache)
    if not box.account.is_root:
        box.run(["chown", "-R", f"{box.account.uid}:{box.account.gid}", box.dir + "/home/hf"], as_root=True)
    m = mount(repo.uri)
    seq = hub.last_seq()
    assert m.read("main/w.bin") == content
    assert data_requests(hub, seq) == [] and resolves(hub, seq) == []


def test_two_mounts_share_the_cache(mount, box, hub):
    content = noise(8 * MIB)
    repo = box.repo({"w.bin": content})
    one, two = mount(repo.uri), mount(repo.uri)
    assert one.read("main/w.bin") == content
    seq = hub.last_seq()
    assert two.read("main/w.bin") == content
    assert data_requests(hub, seq) == []
