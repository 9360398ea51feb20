"""kill -9 at any moment: what was closed is there at the next mount, and is published once."""

import concurrent.futures
import random
import re
import time

import pytest

import harness
from harness import noise

MIB = 1 << 20
INTERRUPTED = r"interrupted|open for writing when hugfs ended"
ROOT_ROUNDS, USER_ROUNDS, LANES = 50, 10, 5


def wait_commit_request(hub, seq, ended=False):
    hub.wait_for(lambda items: [item for item in items if item["method"] == "POST" and "/commit/" in item["path"]
                                and (item["end"] or not ended)], since=seq)


def rounds(box, lane, count):
    """`count` rounds of copy, kill -9, mount again in one repository; what was wrong, as a list."""
    dice = random.Random(1000 + lane)
    repo = box.repo({"start.txt": b"start"})
    m = box.mount(repo.uri, "commit_delay=1", name=f"lane{lane}")
    box.hub.fault(f"{repo.id}/commit/", method="POST", delay_ms=300, delay_answer_ms=300, times=-1)
    box.hub.fault(f"{repo.id}.git/info/lfs/objects/batch", method="POST", delay_answer_ms=200, times=-1)
    wrong, expected = [], {"start.txt": b"start"}
    for number in range(count):
        source = box.folder(f"source-{lane}-{number}")
        files = {f"round-{number}/{name}": dice.randbytes(dice.randrange(1, size))
                 for name, size in (("a.txt", 100), ("b.bin", 2 * MIB), ("deep/c.bin", 5000), ("d.json", 1000))}
        files["same.bin"] = dice.randbytes(300000)
        for name, data in files.items():
            box.run(["sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', f"{source}/{name}"], stdin=data)
        box.run(["sh", "-c", 'cp -r "$0"/. "$1"', source, m.path("main")])
        delay = dice.uniform(0, 3)
        time.sleep(delay)
        m.kill()
        m.restart()
        expected |= files
        try:
            repo.wait_published(1)
            assert repo.files() == expected, "git holds other files"
            m.sh("ls -R main")
        except AssertionError as error:
            wrong.append(f"lane {lane} round {number}, killed after {delay:.2f} s: {error}")
            break
        repo.mark()
    m.unmount()
    if repo.published():
        wrong.append(f"lane {lane}: a commit came after all was published")
    return wrong


@pytest.mark.limit(60)
def test_rounds_of_kill_9(box):
    """Acceptance line 6: each round is killed between 0 and 3 s after cp returned, and is one commit."""
    count = (ROOT_ROUNDS if box.account.is_root else USER_ROUNDS) // LANES
    with concurrent.futures.ThreadPoolExecutor(LANES) as pool:
        results = list(pool.map(lambda lane: rounds(box, lane, count), range(LANES)))
    assert sum(results, []) == []


@pytest.mark.parametrize("answer", ["lost", "late"])
def test_a_commit_that_landed_before_the_kill_is_not_sent_again(mount, box, hub, answer):
    repo = box.repo({"a.txt": b"old", "gone.txt": b"gone"})
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    fault = {"lose_answer": True} if answer == "lost" else {"delay_answer_ms": 20000}
    hub.fault("/commit/", method="POST", **fault)
    box.expect(r"warn")
    m.sh("echo new > main/a.txt; rm main/gone.txt; head -c 1500000 /dev/zero > main/w.bin")
    harness.eventually(lambda: len(repo.published()) == 1)
    if answer == "lost":
        wait_commit_request(hub, seq, ended=True)
    m.kill()
    hub.clear_faults()
    m.restart()
    assert m.read("main/a.txt") == b"new\n"
    m.write("main/next.txt", b"next")
    repo.wait_published(2)
    m.unmount()
    first, second = repo.published()
    assert repo.changes(second) == {"next.txt": "A"}
    assert repo.files() == {"a.txt": b"new\n", "w.bin": bytes(1500000), "next.txt": b"next"}


def test_a_commit_that_landed_under_a_later_push_is_not_sent_again(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3", "poll=1")
    hub.fault("/commit/", method="POST", delay_answer_ms=20000)
    m.sh("echo new > main/a.txt")
    harness.eventually(lambda: len(repo.published()) == 1)
    m.kill()
    hub.clear_faults()
    repo.push({"theirs.txt": b"theirs"})
    m.restart()
    harness.eventually(lambda: "theirs.txt" in m.ls("main"))
    m.write("main/next.txt", b"next")
    repo.wait_published()
    m.unmount()
    assert len(repo.published()) == 1
    assert repo.files() == {"a.txt": b"new\n", "theirs.txt": b"theirs", "next.txt": b"next"}


@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/lfs/[0-9a-f]+/", "/commit/"])
def test_a_kill_while_publishing(mount, box, hub, path):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    hub.fault(path, stall=True, times=-1)
    m.write("main/w.bin", noise(3 * MIB))
    m.sh("echo new > main/a.txt")
    hub.wait_for(lambda items: [item for item in items if re.search(path, item["path"])], since=seq)
    m.kill()
    hub.clear_faults()
    assert repo.published() == []
    m.restart()
    repo.wait_published()
    m.unmount()
    assert len(repo.published()) == 1
    assert repo.files() == {"a.txt": b"new\n", "w.bin": noise(3 * MIB)}


def test_every_kind_of_change_survives_a_kill(mount, box):
    repo = box.repo({"a.txt": b"a", "b/c.txt": b"c", "b/d/e.txt": b"e", "w.bin": noise(2 * MIB), "x/y.txt": b"y",
                     "gone.txt": b"gone"})
    m = mount(repo.uri, "commit=manual")
    m.sh("""cd main
        printf EDIT | dd of=w.bin bs=1 seek=1000000 conv=notrunc status=none
        echo more >> a.txt; mkdir -p new/empty; echo n > new/n.txt; mv b moved; echo in > moved/d/in.txt; rm moved/c.txt
        rm gone.txt; rm -r x; mkdir x; truncate -s 100 new/n.txt; echo z > x/z.txt; mv x/z.txt x/zz.txt
        echo t > x/t.tmp
        """)
    before, listing = m.files("main"), m.sh("cd main; find . | sort")
    m.kill()
    m.restart()
    assert m.files("main") == before and m.sh("cd main; find . | sort") == listing
    assert before["w.bin"] == noise(2 * MIB)[:1000000] + b"EDIT" + noise(2 * MIB)[1000004:]
    m.kill()
    m.restart()
    box.hugfs("commit", m.path("main"))
    published = {name: data for name, data in before.items() if name not in (".gitattributes", "x/t.tmp")}
    assert repo.files() == published
    assert len(repo.published()) == 1


def test_an_open_file_is_interrupted_by_the_crash(mount, box):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    writer = m.start_py("""
        half, again = open('main/half.txt', 'w'), open('main/a.txt', 'w')
        for file in (half, again):
            file.write('half')
            file.flush()
        open('main/whole.txt', 'w').write('whole')
        say('written')
        hear()
        """)
    writer.expect("written")
    m.kill()
    writer.tell()
    writer.wait()
    box.expect(INTERRUPTED)
    m.restart()
    repo.wait_published()
    assert repo.files() == {"a.txt": b"old", "whole.txt": b"whole"}
    assert m.read("main/half.txt") == m.read("main/a.txt") == b"half"
    assert m.xattr("main/half.txt", "state") == "interrupted"
    assert "half.txt" in box.hugfs("status", m.path("main")).out
    m.write("main/half.txt", b"now whole")
    repo.wait_published(2)
    box.hugfs("commit", "--interrupted", m.path("main"))
    assert repo.files() == {"a.txt": b"half", "half.txt": b"now whole", "whole.txt": b"whole"}


@pytest.mark.parametrize("script", [
    "{ echo 1; sh -c 'echo 2'; echo 3; } > main/f", "cat main/a.txt > main/f", "(echo 1; ls / >/dev/null) > main/f",
    "exec 3> main/f; echo 1 >&3; ls / >/dev/null; echo 2 >&3; exec 3>&-", "echo 1 > main/f; echo 2 >> main/f",
    "cp main/a.txt main/f", "dd if=/dev/zero of=main/f bs=1000 count=1 status=none", "echo 1 | tee main/f >/dev/null",
    "truncate -s 100 main/f", ": > main/f"])
def test_what_was_closed_just_before_the_crash_is_whole(mount, box, script):
    """However many processes had it open: `close` came back to the one that wrote."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh(script)
    expected = m.read("main/f")
    m.kill()
    m.restart()
    repo.wait_published()
    assert repo.content("f") == expected


def test_the_end_of_another_process_is_not_a_close(mount, box):
    """A child that inherited the descriptor ends (FLUSH) while the writer is still at it."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    writer = m.start_py("""
        import subprocess
        fd = os.open('main/half.txt', os.O_CREAT | os.O_WRONLY)
        os.set_inheritable(fd, True)
        os.write(fd, b'half')
        subprocess.run(['true'], close_fds=False)
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        say('half')
        hear()
        """)
    writer.expect("half")
    m.kill()
    writer.tell()
    writer.wait()
    box.expect(INTERRUPTED)
    m.restart()
    assert m.xattr("main/half.txt", "state") == "interrupted"
    m.write("main/b.txt", b"b")
    repo.wait_published()
    assert repo.paths() == ["a.txt", "b.txt"]


def test_a_file_that_was_only_open_is_not_interrupted(mount, box):
    """Opened for writing, never written: nothing happened to it."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    holder = m.start_py("file = open('main/a.txt', 'r+'); say('open'); hear()")
    holder.expect("open")
    m.kill()
    holder.tell()
    holder.wait()
    m.restart()
    assert m.xattr("main/a.txt", "state") == "clean"
    m.write("main/b.txt", b"b")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"old", "b.txt": b"b"}


def test_a_killed_writer_publishes_nothing_of_its_file(mount, box):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    writer = m.start_py("""
        file = open('main/killed.txt', 'w')
        file.write('half')
        file.flush()
        say('half')
        hear()
        """)
    writer.expect("half")
    box.expect(INTERRUPTED)
    writer.signal(9)
    writer.wait()
    m.write("main/whole.txt", b"whole")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"old", "whole.txt": b"whole"}
    assert m.xattr("main/killed.txt", "state") == "interrupted"
    assert m.read("main/killed.txt") == b"half"
    m.sh("rm main/killed.txt; echo again > main/killed.txt")
    repo.wait_published(2)
    assert repo.content("killed.txt") == b"again\n"


def test_ctrl_c_on_cp(mount, box):
    """SIGINT in the middle of a cp of several files: those that were closed are published."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.5")
    source = box.folder("source")
    box.run(["sh", "-c", 'cd "$0"; echo 1 > 1.txt; mkfifo 2.bin', source])
    box.expect(INTERRUPTED)
    copier = box.spawn(["sh", "-c", 'echo copying; exec cp --copy-contents -r "$0" "$1"', source, m.path("main/new")])
    feeder = box.spawn(["sh", "-c", 'exec 3> "$0"; head -c 300000 /dev/zero >&3; exec sleep 60', source + "/2.bin"])
    copier.expect("copying")
    harness.eventually(lambda: m.exists("main/new/2.bin") and m.exists("main/new/1.txt"))
    copier.signal(2)
    assert copier.wait() == -2
    feeder.close()
    repo.wait_published()
    assert repo.files() == {"a.txt": b"old", "new/1.txt": b"1\n"}


def test_a_kill_in_the_middle_of_many_files(mount, box):
    """What was closed is published; the file that was being written is interrupted; what came later is not there."""
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.5")
    writer = m.start_py("""
        os.mkdir('main/d')
        for n in range(9):
            with open(f'main/d/{n}.bin', 'wb', 0) as file:
                file.write(bytes([n]) * 500000)
                if n == 5:
                    say('half')
                    hear()
                file.write(bytes([n]) * 500000)
        """)
    writer.expect("half")
    m.kill()
    writer.tell()
    assert writer.wait() != 0
    box.expect(INTERRUPTED)
    m.restart()
    repo.wait_published()
    assert m.xattr("main/d/5.bin", "state") == "interrupted"
    m.unmount()
    assert len(repo.published()) == 1
    assert repo.files() == {"a.txt": b"a", **{f"d/{n}.bin": bytes([n]) * 1000000 for n in range(5)}}


@pytest.mark.parametrize("options", [("commit=manual",), ("offline",)])
def test_what_is_left_waits_for_a_mount_that_may_publish(mount, box, options):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=manual")
    m.write("main/left.txt", b"left")
    m.unmount()
    box.expect(r"offline|last known state")
    m.restart(*options)
    assert m.read("main/left.txt") == b"left"
    m.unmount()
    m.restart("ro")
    assert m.ls("main")[-1] != "left.txt" or m.read("main/left.txt") == b"left"
    m.unmount()
    assert repo.published() == []
    m.restart("commit_delay=0.3")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"a", "left.txt": b"left"}


def test_a_mount_of_the_hub_publishes_what_a_mount_of_the_repository_left(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=manual")
    m.write("main/left.txt", b"left")
    m.kill()
    mount("hf://", "commit_delay=0.3")
    repo.wait_published()
    assert repo.content("left.txt") == b"left"


def test_sigterm_publishes_and_leaves(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=60")
    m.write("main/new.txt", b"new")
    m.process.terminate()
    m.process.wait(15)
    assert m.dir not in harness.mounts()
    assert len(repo.published()) == 1
    m.unmount()


def test_sigterm_right_after_close(mount, box):
    """The kernel's RELEASE comes after `close` has returned, and on a busy machine after the signal."""
    for _ in range(3):
        box.spawn(["sh", "-c", "while :; do :; done"])
    for number in range(12):
        repo = box.repo({"a.txt": b"a"})
        m = mount(repo.uri, "commit_delay=60")
        m.py("""
            with open('main/new.txt', 'wb') as file:
                file.write(b'new')
            os.kill(int(sys.argv[1]), 15)
            """, str(m.process.pid))
        m.process.wait(15)
        assert len(repo.published()) == 1, f"round {number}"
        m.unmount()


def test_a_second_sigterm_leaves_at_once(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=60", "umount_timeout=30")
    hub.fault("/(commit|preupload)/", method="POST", stall=True, times=-1)
    seq = hub.last_seq()
    m.write("main/new.txt", b"new")
    box.expect(r"(warn|err) |staged")
    m.process.terminate()
    hub.wait_for(lambda items: [item for item in items if item["method"] == "POST"], since=seq)
    began = time.monotonic()
    m.process.terminate()
    m.process.wait(15)
    assert time.monotonic() - began < 3
    hub.clear_faults()
    m.restart("commit_delay=0.2")
    repo.wait_published()


def test_unmounting_gives_up_after_umount_timeout(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=60", "umount_timeout=2")
    hub.fault("/(commit|preupload)/", method="POST", stall=True, times=-1)
    m.write("main/new.txt", b"new")
    box.expect(r"(warn|err) |staged")
    began = time.monotonic()
    m.unmount()
    assert 1.5 < time.monotonic() - began < 8
    hub.clear_faults()
    m.restart("commit_delay=0.2")
    repo.wait_published()
    assert repo.content("new.txt") == b"new"


def test_a_new_mount_takes_over_from_one_that_still_publishes(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=60", "umount_timeout=25")
    fault = hub.fault("/(commit|preupload)/", method="POST", stall=True, times=-1)
    seq = hub.last_seq()
    m.write("main/new.txt", b"new")
    box.expect(r"(warn|err) |staged")
    m._detach()
    hub.wait_for(lambda items: [item for item in items if item["method"] == "POST"], since=seq)
    other = mount(repo.uri, "commit_delay=0.2")
    assert other.read("main/new.txt") == b"new"
    other.write("main/second.txt", b"second")
    hub.clear_faults(fault)
    harness.eventually(lambda: repo.paths() == ["a.txt", "new.txt", "second.txt"])
    m.process.wait(10)
    other.unmount()
    assert sum("new.txt" in repo.changes(commit) for commit in repo.published()) == 1


def test_two_mounts_of_one_branch(mount, box):
    """A second mount shows the branch as committed; to write there is EBUSY until nothing is staged."""
    repo = box.repo({"a.txt": b"a"})
    one, two = mount(repo.uri, "commit=manual", "poll=1"), mount(repo.uri, "poll=1")
    one.write("main/one.txt", b"one")
    assert two.ls("main") == [".gitattributes", "a.txt"]
    box.expect(r"\b%d\b" % one.process.pid)
    for attempt in ("open('main/two.txt', 'w')", "open('main/a.txt', 'r+')", "os.unlink('main/a.txt')",
                    "os.mkdir('main/d')"):
        assert two.outcome(attempt) == "EBUSY", attempt
    assert str(one.process.pid) in two.stderr()
    box.hugfs("commit", one.path("main"))
    harness.eventually(lambda: two.ls("main") == [".gitattributes", "a.txt", "one.txt"])
    harness.eventually(lambda: two.outcome("open('main/two.txt', 'w').close()") == "0", 10, "the hand-over")
