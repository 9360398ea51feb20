"""When a commit happens: the rows of the table beyond the quiet period (test_publish.py) and fsync (test_fsync.py)."""

import time

import harness


def commit_posts(hub, seq):
    return [item for item in hub.requests(since=seq, method="POST") if "/commit/" in item["path"]]


# commit=sync

def test_close_waits_for_the_commit(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "sync", "commit_delay=0.3", "open_wait=30")
    m.py("""
        file = open('main/new.bin', 'wb')
        file.write(bytes(100000))
        before = time.monotonic()
        file.close()
        assert 0.2 < time.monotonic() - before < 10
        """)
    assert repo.content("new.bin") == bytes(100000) and len(repo.published()) == 1
    time.sleep(1)  # its RELEASE is no change: there must be no second commit
    assert len(repo.published()) == 1
    m.sh("echo one > main/shell; cp main/new.bin main/copy.bin")
    assert {"shell", "copy.bin"} <= set(repo.paths())


def test_close_returns_the_commits_error(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=sync", "commit_delay=0.2")
    box.expect("403|not published")
    hub.fault(f"/{repo.id}/commit/", method="POST", status=403)
    assert m.py("""
        file = open('main/new', 'wb', 0)
        file.write(b'x')
        print(outcome(file.close))
        """) == "EACCES\n"
    assert m.read("main/new") == b"x" and repo.published() == []
    m.sh("echo again > main/new")
    assert repo.content("new") == b"again\n"


def test_only_the_writers_own_close_waits(mount, box):
    """A shell redirects, a program forks: who did not write, or wrote nothing yet, is not held."""
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "sync", "commit_delay=0.2")
    m.py("""
        import subprocess
        file = open('main/log', 'wb', 0)
        file.write(b'begin ')
        before = time.monotonic()
        for _ in range(20):
            subprocess.run(['/bin/true'], close_fds=False, pass_fds=[file.fileno()])
        assert time.monotonic() - before < 5, 'a child that did not write was held'
        file.write(b'end')
        file.close()
        """)
    assert repo.content("log") == b"begin end" and len(repo.published()) == 1


# commit_interval

def test_an_interval_takes_what_was_appended(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_interval=1.5", "commit_delay=0.1", "open_wait=60")
    writer = m.start_py("""
        log = open('main/train.log', 'ab', 0)
        log.write(b'one ')
        model = open('main/model.bin', 'wb', 0)
        model.write(bytes(1000))
        model.seek(0)
        model.write(b'header')
        say('written')
        hear()
        log.write(b'two')
        say('more')
        hear()
        model.close()
        """)
    writer.expect("written")
    first = harness.eventually(repo.published, 10, "the first commit")
    assert repo.files() == {"a.txt": b"a", "train.log": b"one "}  # the model was not only appended to
    writer.tell()
    writer.expect("more")
    harness.eventually(lambda: repo.content("train.log") == b"one two", 10, "the second commit")
    assert len(repo.published()) == len(first) + 1
    seq = hub.last_seq()
    time.sleep(4)  # two beats without a change
    assert commit_posts(hub, seq) == []
    writer.tell()
    writer.finish()
    harness.eventually(lambda: "model.bin" in repo.paths(), 10, "the model")
    assert m.stat("main/train.log").size == 7


# hugfs commit

def test_hugfs_commit_takes_a_file_at_its_writers_close(mount, box):
    """A copy of the descriptor lives on in a child, so that RELEASE does not come."""
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=manual")
    child = m.start_py("""
        if os.fork() == 0:
            fd = os.open('main/done', os.O_WRONLY | os.O_CREAT)
            if os.fork() == 0:
                os.write(1, b'forked\\n')
                hear()
                os._exit(0)
            os.write(fd, b'done')
            os.close(fd)
            os._exit(0)
        os.wait()
        say('closed')
        """)
    assert {child.expect(), child.expect()} == {"forked", "closed"}
    assert child.wait() == 0
    result = box.hugfs("commit", m.path("main"))
    assert result.err == "" and repo.content("done") == b"done"
    assert m.xattr("main/done", "state") in ("open", "clean")
    child.tell()  # the one that was forked
    child.close()


def test_poll_below_a_second(mount, box):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "poll=0.2")
    assert m.read("main/a.txt") == b"old"
    repo.push({"a.txt": b"new"})
    pushed = time.monotonic()
    harness.eventually(lambda: m.read("main/a.txt") == b"new", 5)
    assert time.monotonic() - pushed < 0.9
