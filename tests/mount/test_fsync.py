"""fsync: it returns when the Hub has the commit, or says why not; either way the bytes are kept."""

import time

import pytest

import harness
from harness import noise

MIB = 1 << 20
WRITE_AND_SYNC = """
    fd = os.open('main/' + sys.argv[1], os.O_CREAT | os.O_WRONLY)
    os.write(fd, sys.argv[2].encode())
    began = time.monotonic()
    print(outcome(os.fsync, fd), time.monotonic() - began)
    """


def write_and_sync(mount, name="a.txt", text="synced", timeout=40):
    """Write a file and fsync it: (name of the errno, seconds)."""
    result, seconds = mount.py(WRITE_AND_SYNC, name, text, timeout=timeout).split()
    return result, float(seconds)


def requests_of(hub, seq, part):
    return [item for item in hub.requests(since=seq) if part in item["path"]]


def test_fsync_returns_when_git_has_the_commit(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", delay_ms=700)
    assert write_and_sync(m)[0] == "0"
    assert repo.files() == {"a.txt": b"synced"} and len(repo.published()) == 1


def test_fsync_with_lfs_content(mount, box, hub):
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=60")
    assert m.py("""
        with open('main/w.bin', 'wb') as file:
            file.write(sys.stdin.buffer.read())
            file.flush()
            print(outcome(os.fsync, file.fileno()))
            file.write(b'more')
        """, stdin=noise(3 * MIB)) == "0\n"
    assert repo.content("w.bin", repo.published()[0]) == noise(3 * MIB)
    m.unmount()
    assert repo.content("w.bin") == noise(3 * MIB) + b"more"


@pytest.mark.parametrize("call", [
    "os.fdatasync(fd)", "os.fsync(os.open('main', os.O_RDONLY))", "os.fsync(os.open('main/d', os.O_RDONLY))"])
def test_other_ways_to_sync(mount, box, call):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=60")
    m.py(f"""
        os.mkdir('main/d')
        fd = os.open('main/d/new.txt', os.O_CREAT | os.O_WRONLY)
        os.write(fd, b'new')
        if 'fdatasync' not in {call!r}: os.close(fd)
        {call}
        """)
    assert repo.files() == {"a.txt": b"a", "d/new.txt": b"new"}


def test_msync(mount, box):
    repo = box.repo({"a.txt": b"0123456789"})
    m = mount(repo.uri, "commit_delay=60")
    m.py("""
        file = open('main/a.txt', 'r+b')
        view = mmap.mmap(file.fileno(), 0)
        view[2:4] = b'xx'
        view.flush()
        """)
    assert repo.content("a.txt") == b"01xx456789"


def test_nothing_unpublished_costs_no_request(mount, box, hub):
    repo = box.repo({"a.txt": b"a", "d/b.txt": b"b"})
    m = mount(repo.uri, "commit_delay=0.2", "poll=600")
    m.write("main/new.txt", b"new")
    repo.wait_published()
    harness.eventually(lambda: m.xattr("main/new.txt", "state") == "clean")
    m.sh("ls -R main")
    seq = hub.last_seq()
    assert m.py("""
        for name in ('main/new.txt', 'main/a.txt', 'main', 'main/d', '.'):
            print(outcome(os.fsync, os.open(name, os.O_RDONLY)))
        print(outcome(os.fsync, os.open('main/a.txt', os.O_RDWR)))
        """).split() == ["0"] * 6
    assert hub.requests(since=seq) == []


def test_fsync_of_a_file_while_another_is_half_written(mount, box):
    """Acceptance line 8: the commit holds `a` and not `b`."""
    repo = box.repo({"old.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    writer = m.start_py("""
        file = open('main/b', 'w')
        file.write('half')
        file.flush()
        say('half')
        hear()
        file.write(' and half')
        """)
    writer.expect("half")
    assert write_and_sync(m, "a")[0] == "0"
    assert repo.paths() == ["a", "old.txt"] and len(repo.published()) == 1
    writer.tell()
    writer.finish()
    assert m.read("main/b") == b"half and half"


def test_fsync_of_a_temporary_file_then_rename(mount, box):
    """Acceptance line 8: one commit, no temporary name in history."""
    repo = box.repo({"x": b"old"})
    m = mount(repo.uri, "commit_delay=0.5")
    m.py("""
        with open('main/x.tmp', 'w') as file:
            file.write('new')
            file.flush()
            os.fsync(file.fileno())
        os.rename('main/x.tmp', 'main/x')
        os.fsync(os.open('main', os.O_RDONLY))
        """)
    m.unmount()
    assert [repo.changes(commit) for commit in repo.published()] == [{"x": "M"}]
    assert repo.content("x") == b"new"


@pytest.mark.parametrize("processes", [4, 12])
def test_ranks_that_sync_shards_make_one_commit(mount, box, processes):
    """Acceptance line 8: all are open before the first fsync."""
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=60")
    ranks = [m.start_py("""
        rank = int(sys.argv[1])
        file = open(f'main/shard-{rank}.bin', 'wb')
        say('open')
        hear()
        for part in range(5):
            file.write(bytes([rank]) * 300000)
            file.flush()
            time.sleep(0.02 * rank)
        os.fsync(file.fileno())
        say('synced')
        """, str(rank)) for rank in range(processes)]
    for rank in ranks:
        rank.expect("open")
    for rank in ranks:
        rank.tell()
    for rank in ranks:
        rank.expect("synced")
    assert len(repo.published()) == 1
    assert repo.files() == {f"shard-{rank}.bin": bytes([rank]) * 1500000 for rank in range(processes)}
    for rank in ranks:
        rank.finish()


def test_fsync_waits_for_another_file_that_grows(mount, box):
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=60")
    slow = m.start_py("""
        file = open('main/slow', 'wb', 0)
        for n in range(20):
            file.write(b'x')
            if n == 0: say('growing')
            time.sleep(0.1)
        os.fsync(file.fileno())
        """)
    slow.expect("growing")
    assert write_and_sync(m, "quick")[0] == "0"
    slow.finish()
    assert len(repo.published()) == 1 and repo.paths() == ["quick", "slow"]


def test_fsyncs_during_a_commit_join_it_or_the_next(mount, box, hub):
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=60")
    fault = hub.fault("/commit/", method="POST", stall=True)
    seq = hub.last_seq()
    children = []
    for name in ("a", "b", "c"):
        children.append(m.start_py(WRITE_AND_SYNC, name, name))
        if name == "a":
            hub.wait_for(lambda items: [item for item in items if "/commit/" in item["path"]], since=seq)
    harness.eventually(lambda: {"b", "c"} <= set(m.ls("main")))
    hub.clear_faults(fault)
    for child in children:
        child.expect("0 ")
        child.finish()
    assert repo.files() == {"a": b"a", "b": b"b", "c": b"c"}
    assert len(repo.published()) == 2


# When it is only local

@pytest.mark.parametrize("name, code, options", [
    ("x.tmp", "os.fsync(os.open(P, os.O_CREAT | os.O_RDWR))", ()),
    ("o_sync", "os.write(os.open(P, os.O_CREAT | os.O_RDWR | os.O_SYNC), b'x')", ()),
    ("o_sync and fsync", "fd = os.open(P, os.O_CREAT | os.O_RDWR | os.O_SYNC); os.write(fd, b'x'); os.fsync(fd)", ()),
    ("o_dsync", "fd = os.open(P, os.O_CREAT | os.O_RDWR | os.O_DSYNC); os.write(fd, b'x'); os.fsync(fd)", ()),
    ("unlinked", "fd = os.open(P, os.O_CREAT | os.O_RDWR); os.write(fd, b'x'); os.unlink(P); os.fsync(fd)", ()),
    ("stage", "fd = os.open(P, os.O_CREAT | os.O_RDWR); os.write(fd, b'x'); os.fsync(fd)", ("fsync=stage",)),
    ("manual", "fd = os.open(P, os.O_CREAT | os.O_RDWR); os.write(fd, b'x'); os.fsync(fd)", ("commit=manual",)),
], ids=lambda value: value if isinstance(value, str) and " " not in value else None)
def test_fsync_is_local(mount, box, hub, name, code, options):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=60", *options)
    m.ls("main")
    hub.fault("/(commit|preupload)/", method="POST", stall=True, times=-1)
    seq = hub.last_seq()
    m.py(f"P = 'main/' + sys.argv[1]; {code}", name, timeout=10)
    assert requests_of(hub, seq, "/commit/") == []


# When it fails: acceptance line 7

def kept_after_kill(box, hub, mount, repo, text):
    """The bytes are there after kill -9; then they are published, once."""
    mount.kill()
    hub.clear_faults()
    mount.restart("commit_delay=0.3")
    assert mount.read("main/a.txt") == text


def test_fsync_refused_is_eacces(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", status=403, times=-1)
    box.expect(r"403|EACCES|Permission|permission|refused|forbidden")
    assert write_and_sync(m)[0] == "EACCES"
    assert repo.published() == [] and m.read("main/a.txt") == b"synced"
    kept_after_kill(box, hub, m, repo, b"synced")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"synced"}


def test_fsync_whose_answer_was_504_after_landing_is_0(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", lose_answer_status=504)
    box.expect(r"504")
    assert write_and_sync(m)[0] == "0"
    assert len(repo.published()) == 1
    m.kill()
    m.restart()
    assert m.read("main/a.txt") == b"synced"
    m.unmount()
    assert len(repo.published()) == 1


def test_fsync_whose_answer_was_lost_is_0(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", lose_answer=True)
    box.expect(r"warn")
    assert write_and_sync(m)[0] == "0"
    m.unmount()
    assert len(repo.published()) == 1


def test_fsync_on_a_branch_that_moved_is_estale(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    assert m.read("main/a.txt") == b"old"
    m.write("main/a.txt", b"mine")
    repo.push({"a.txt": b"theirs"})
    box.expect(r"(warn|err) ")
    assert m.py("print(outcome(os.fsync, os.open('main/a.txt', os.O_RDWR)))") == "ESTALE\n"
    assert repo.published() == [] and repo.content("a.txt") == b"theirs"
    assert m.read("main/a.txt") == b"mine"
    kept_after_kill(box, hub, m, repo, b"mine")
    time.sleep(1)
    assert repo.published() == [] and repo.content("a.txt") == b"theirs"


def test_a_push_in_the_last_moment_is_never_overwritten(mount, box, hub):
    """Somebody pushes after we asked for everything and before our commit is applied: its parent forbids it."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault(f"{repo.id}/commit/", method="POST", delay_ms=1500)
    seq = hub.last_seq()
    child = m.start_py(WRITE_AND_SYNC, "a.txt", "mine")
    hub.wait_for(lambda items: [item for item in items if "/commit/" in item["path"]], since=seq)
    theirs = repo.push({"a.txt": b"theirs"})
    box.expect(r"(warn|err) ")
    child.expect("ESTALE")
    child.finish()
    assert repo.head() == theirs and m.read("main/a.txt") == b"mine"


def test_fsync_answered_412_is_estale(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", status=412, times=-1)
    box.expect(r"(warn|err) ")
    assert write_and_sync(m)[0] == "ESTALE"
    kept_after_kill(box, hub, m, repo, b"synced")


@pytest.mark.parametrize("path", ["/commit/", "/preupload/"])
def test_fsync_without_an_answer_is_etimedout(mount, box, hub, path):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60", "fsync_timeout=5")
    hub.fault(path, method="POST", stall=True, times=-1)
    box.expect(r"(warn|err) ")
    result, seconds = write_and_sync(m)
    assert result == "ETIMEDOUT" and 4 < seconds < 12
    kept_after_kill(box, hub, m, repo, b"synced")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"synced"}


def test_fsync_waits_while_bytes_move(mount, box, hub):
    hub.config(multipart_threshold=MIB, chunk_size=MIB)
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=60", "fsync_timeout=2")
    hub.fault(r"/uploads/", method="PUT", origin="data", delay_ms=1200, times=-1)
    m.py("""
        with open('main/w.bin', 'wb') as file:
            file.write(sys.stdin.buffer.read())
            file.flush()
            os.fsync(file.fileno())
        """, stdin=noise(14 * MIB), timeout=50)
    assert repo.content("w.bin") == noise(14 * MIB)


def test_fsync_over_the_commit_quota_is_edquot(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", status=429, times=-1, body={
        "error": "You have exceeded the rate limit for repository commits (128 per hour). "
                 "You can retry this action in about 1 hour."})
    box.expect(r"(warn|err) ")
    result, seconds = write_and_sync(m)
    assert result == "EDQUOT" and seconds < 10
    assert m.read("main/a.txt") == b"synced"


def test_fsync_offline_is_enetdown(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    m.sh("cat main/a.txt; ls main")
    m.unmount()
    m.restart("commit_delay=60", "offline")
    box.expect(r"offline|(warn|err) ")
    result, seconds = write_and_sync(m)
    assert result == "ENETDOWN" and seconds < 5
    m.unmount()
    assert repo.published() == []
    m.restart("commit_delay=0.3")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"synced"}


def test_fsync_when_the_hub_is_gone(mount, box, hub):
    """No network: the Hub's port answers nothing."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60", "fsync_timeout=3")
    m.write("main/before.tmp", b"")
    hub.fault("/api/", lose_answer=True, times=-1)
    box.expect(r"(warn|err) ")
    result, _ = write_and_sync(m)
    assert result in ("ETIMEDOUT", "ENETDOWN", "EIO")
    hub.clear_faults()
    assert m.read("main/a.txt") == b"synced"


def test_an_interrupted_fsync_is_eintr(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    fault = hub.fault("/commit/", method="POST", stall=True, times=-1)
    seq = hub.last_seq()
    child = m.start_py("""
        import signal
        class Alarm(Exception): pass
        def ring(*_): raise Alarm
        signal.signal(signal.SIGUSR1, ring)
        fd = os.open('main/a.txt', os.O_WRONLY)
        os.write(fd, b'new')
        try:
            os.fsync(fd)
        except Alarm:
            say('interrupted')
        """)
    hub.wait_for(lambda items: [item for item in items if "/commit/" in item["path"]], since=seq)
    began = time.monotonic()
    child.signal(10)
    child.expect("interrupted", 10)
    assert time.monotonic() - began < 2
    child.finish()
    hub.clear_faults(fault)
    repo.wait_published()
    assert repo.content("a.txt") == b"new"


def test_each_fsync_tries_again(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    hub.fault("/commit/", method="POST", status=403)
    box.expect(r"(warn|err) ")
    assert write_and_sync(m)[0] == "EACCES"
    assert write_and_sync(m)[0] == "0"
    assert len(repo.published()) == 1


def test_a_failed_publication_is_told_once_by_close(mount, box, hub):
    repo = box.repo({"a.txt": b"old", "other.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    hub.fault("/commit/", method="POST", status=403, times=-1)
    box.expect(r"(warn|err) ")
    m.write("main/a.txt", b"new")
    hub.wait_for(lambda items: [item for item in items if "/commit/" in item["path"] and item["end"]], since=seq)
    harness.eventually(lambda: m.xattr("main/a.txt", "error"))
    close = "fd = os.open(sys.argv[1], os.O_WRONLY); print(outcome(os.close, fd))"
    assert m.py(close, "main/other.txt") == "0\n"
    assert m.py(close, "main/a.txt") == "EACCES\n"
    assert m.py(close, "main/a.txt") == "0\n"
    assert "403" in box.hugfs("status", m.path("main")).out or "ermission" in box.hugfs("status", m.path("main")).out
