"""The command: mounting in the background, status, commit, discard, umount, and what they print and return."""

import json
import os
import subprocess

import pytest

import harness


@pytest.fixture
def repo(box):
    return box.repo({"a.txt": b"a\n", "d/b.txt": b"b\n"})


def test_it_mounts_in_the_background(box, repo):
    m = harness.Mount(box, "background")
    m.command = (repo.uri, (), None)
    box.mounts.append(m)
    done = box.hugfs(repo.uri, m.dir, "-o", "commit_delay=0.3")
    assert done.out == done.err == ""
    m.adopt()
    assert m.read("main/a.txt") == b"a\n"
    m.write("main/new.txt", b"new")
    repo.wait_published()
    pid, = box.session.daemons()
    assert os.getsid(pid) == pid
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert b"hf_" not in file.read()
    m.unmount()
    harness.eventually(lambda: not box.session.daemons(), 10, "the end of the daemon")


def test_mount_8(session, root_box):
    """Through mount(8) as root, as /etc/fstab would; with the program's path, for it is not installed here."""
    box, repo = root_box, root_box.repo({"a.txt": b"a\n"})
    m = harness.Mount(box, "fstab")
    m.command = (repo.uri, (), None)
    box.mounts.append(m)
    box.run(["mount", "-t", "fuse", f"{session.binary}#{repo.uri}", m.dir, "-o",
             f"ro,noauto,x-systemd.automount,poll=10,endpoint={box.hub.endpoint}"])
    m.adopt()
    assert m.read("main/a.txt") == b"a\n"
    assert "ro" in harness.mounts()[m.dir][1].split(",")
    m.unmount()
    harness.eventually(lambda: not session.daemons(), 10, "the end of the daemon")


def test_help_and_version(box):
    assert "commit_delay" in box.hugfs("--help").out
    assert box.hugfs("--version").out.startswith("hugfs ")
    for words in ((), ("frobnicate",), ("status", "--frobnicate"), ("commit",)):
        result = box.hugfs(*words, check=False)
        assert result.status != 0 and result.err and result.out == "", words


# status

def status(box, m):
    return json.loads(box.hugfs("status", "--json", m.dir).out)


def walk(value):
    """Every scalar of a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [scalar for item in value for scalar in walk(item)]
    return [value]


def test_status(mount, box, repo):
    m = mount(repo.uri, "commit=manual")
    out = box.hugfs("status").out
    assert m.dir in out and repo.uri in out
    assert {m.dir, repo.uri} <= set(walk(status(box, m)))
    m.sh("echo new > main/new.txt; echo x > main/x.tmp; rm main/a.txt; mv main/d main/moved")
    writer = m.start_py("file = open('main/half.txt', 'w'); file.write('half'); file.flush(); say('open'); hear()")
    writer.expect("open")
    out = box.hugfs("status", m.path("main")).out
    for word in ("main", "new.txt", "half.txt", "a.txt", "moved", "x.tmp"):
        assert word in out, word
    assert any("half.txt" in str(value) for value in walk(status(box, m)))
    writer.tell()
    writer.finish()
    box.hugfs("commit", m.path("main"))
    assert repo.head()[:7] in box.hugfs("status", m.path("main")).out


def test_status_without_a_mount(box):
    assert box.hugfs("status").status == 0
    assert json.loads(box.hugfs("status", "--json").out) in ([], {"mounts": []})
    result = box.hugfs("status", box.dir, check=False)
    assert result.status != 0 and box.dir in result.err


def test_status_tells_a_failure(mount, box, repo, hub):
    m = mount(repo.uri, "commit_delay=0.2")
    hub.fault("/commit/", method="POST", status=403, times=-1, body={"error": "the policy of acme says no"})
    box.expect(r"(warn|err) ")
    m.write("main/new.txt", b"new")
    harness.eventually(lambda: "the policy of acme says no" in box.hugfs("status", m.dir).out)
    assert any("the policy of acme says no" in str(value) for value in walk(status(box, m)))


# commit

def test_commit_prints_the_url(mount, box, repo, hub):
    m = mount(repo.uri, "commit=manual")
    m.write("main/new.txt", b"new")
    out = box.hugfs("commit", "-m", "A title", "-m", "A text", m.path("main")).out
    head, = repo.published()
    assert f"{hub.endpoint}/{repo.id}/commit/{head}" in out
    message = repo.hub.git(repo.id, "log", "-1", "--format=%B", "main").decode()
    assert message.startswith("A title\n") and "A text" in message
    again = box.hugfs("commit", m.path("main"))
    assert again.status == 0 and len(repo.published()) == 1


@pytest.mark.parametrize("path", ["", "main/d", "main/d/b.txt"])
def test_commit_takes_any_path(mount, box, repo, path):
    m = mount(repo.uri, "commit=manual")
    m.write("main/new.txt", b"new")
    box.hugfs("commit", m.path(path))
    assert len(repo.published()) == 1


def test_commit_leaves_open_files_out(mount, box, repo):
    m = mount(repo.uri, "commit=manual")
    m.write("main/new.txt", b"new")
    writer = m.start_py("file = open('main/half.txt', 'w'); file.write('half'); file.flush(); say('open'); hear()")
    writer.expect("open")
    result = box.hugfs("commit", m.path("main"), check=False)
    assert result.status == 3 and "half.txt" in result.out + result.err
    assert repo.paths() == ["a.txt", "d/b.txt", "new.txt"]
    writer.tell()
    writer.finish()


def test_commit_of_two_branches(mount, box, repo, hub):
    hub.branch(repo.id, "dev")
    repo.mark("dev")
    m = mount(repo.uri, "commit=manual")
    m.write("main/m.txt", b"m")
    m.write("dev/d.txt", b"d")
    box.hugfs("commit", m.path("dev"))
    assert (len(repo.published("dev")), len(repo.published())) == (1, 0)
    box.hugfs("commit", m.dir)
    assert len(repo.published()) == 1


def test_commit_that_fails(mount, box, repo, hub):
    m = mount(repo.uri, "commit=manual")
    m.write("main/new.txt", b"new")
    hub.fault("/commit/", method="POST", status=403, body={"error": "the policy of acme says no"})
    box.expect(r"(warn|err) ")
    result = box.hugfs("commit", m.path("main"), check=False)
    assert result.status not in (0, 3) and "the policy of acme says no" in result.err
    assert box.hugfs("commit", m.path("main")).status == 0


def test_commit_outside_of_a_mount(box):
    result = box.hugfs("commit", box.dir, check=False)
    assert result.status != 0 and box.dir in result.err


# discard

def test_discard(mount, box, repo):
    m = mount(repo.uri, "commit=manual")
    m.sh("cd main; echo more >> a.txt; rm -r d; echo new > new.txt; mkdir none; mv a.txt z.txt")
    box.hugfs("discard", "-y", m.path("main"))
    assert m.ls("main") == [".gitattributes", "a.txt", "d"]
    assert m.read("main/a.txt") == b"a\n" and m.read("main/d/b.txt") == b"b\n"
    box.hugfs("commit", m.path("main"))
    assert repo.published() == []


def test_discard_of_one_file(mount, box, repo):
    m = mount(repo.uri, "commit=manual")
    m.sh("cd main; echo more >> a.txt; echo new > new.txt; echo more >> d/b.txt")
    box.hugfs("discard", "-y", m.path("main/a.txt"))
    box.hugfs("discard", "-y", m.path("main/d"))
    assert m.read("main/a.txt") == b"a\n"
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {"a.txt": b"a\n", "d/b.txt": b"b\n", "new.txt": b"new\n"}


def test_discard_asks(mount, box, repo):
    m = mount(repo.uri, "commit=manual")
    m.write("main/new.txt", b"new")
    for answer in (b"n\n", b""):
        result = box.hugfs("discard", m.path("main"), stdin=answer, check=False)
        assert result.status != 0
        assert m.read("main/new.txt") == b"new"
    box.hugfs("discard", m.path("main"), stdin=b"y\n")
    assert "new.txt" not in m.ls("main")


# umount

def test_umount_publishes_first(mount, box, repo):
    m = mount(repo.uri, "commit_delay=60")
    m.write("main/new.txt", b"new")
    box.hugfs("umount", m.dir)
    assert m.dir not in harness.mounts()
    assert len(repo.published()) == 1
    assert m.process.wait(10) == 0


def test_umount_says_what_stays_staged(mount, box, repo):
    m = mount(repo.uri, "commit=manual")
    m.write("main/new.txt", b"new")
    result = box.hugfs("umount", m.dir, check=False)
    assert result.status == 3 and "new.txt" in result.out + result.err
    assert m.dir not in harness.mounts() and repo.published() == []
    m.process.wait(10)


def test_umount_after_a_failure(mount, box, repo, hub):
    m = mount(repo.uri, "commit_delay=60")
    m.write("main/new.txt", b"new")
    hub.fault("/commit/", method="POST", status=403, times=-1)
    box.expect(r"(warn|err) ")
    result = box.hugfs("umount", m.dir, check=False)
    assert result.status == 3 and m.dir not in harness.mounts()
    m.process.wait(10)


def test_umount_with_files_open(mount, box, repo):
    m = mount(repo.uri, "commit_delay=60")
    m.write("main/new.txt", b"new")
    holder = m.start_py("file = open('main/a.txt'); say('open'); hear()")
    holder.expect("open")
    result = box.hugfs("umount", m.dir, check=False)
    assert result.status == 1
    assert str(holder.process.pid) in result.err
    assert m.read("main/a.txt") == b"a\n"
    holder.tell()
    holder.finish()
    box.hugfs("umount", m.dir)


def test_the_socket_is_private(mount, box, repo):
    m = mount(repo.uri)
    found = subprocess.run(["find", box.dir + "/run", "-type", "s", "-printf", "%m %U\n"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    assert found == f"600 {box.account.uid}\n"
    folder = os.stat(box.dir + "/run/hugfs")
    assert (folder.st_mode & 0o777, folder.st_uid) == (0o700, box.account.uid)
    for path in ("home/cache/hugfs", "home/state/hugfs"):
        assert os.stat(f"{box.dir}/{path}").st_mode & 0o777 == 0o700
    m.unmount()


def test_the_token_is_nowhere_on_disk(mount, box, repo, hub):
    m = mount(repo.uri, "commit_delay=0.2", "log=debug")
    m.write("main/new.bin", bytes(1500000))
    repo.wait_published()
    m.read("main/a.txt")
    m.unmount()
    found = box.run(["grep", "-rlF", "-e", hub.tokens["user"], "-e", "X-Amz-Signature", box.dir], check=False,
                    as_root=True)
    assert found.out == ""
