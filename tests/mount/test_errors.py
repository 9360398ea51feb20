"""The sentences at start, and publications that fail: staged, retried, reported, never lost, never twice."""

import os
import time

import pytest

import harness
from harness import noise

MIB = 1 << 20


# The start: one clear sentence with the cure, and no mount

def refusal(box, source, *options, folder=None, wrap=(), **more):
    """What `hugfs` says when it does not mount: one line."""
    folder = folder or box.folder(f"refused{len(os.listdir(box.dir))}")
    argv = [*wrap, box.session.binary, source, folder, *(["-o", ",".join(options)] if options else [])]
    result = box.run(argv, check=False, **more)
    assert result.status != 0, result
    assert folder not in harness.mounts()
    lines = [line for line in result.err.splitlines() if line]
    assert len(lines) == 1, lines
    assert "hf_" not in result.err and result.out == ""
    return lines[0]


@pytest.mark.parametrize("source, words", [
    ("hf://user/no-such-repo", ["user/no-such-repo"]),
    ("hf://{id}@no-such-branch", ["no-such-branch"]),
    ("hf://{id}@main/no/such/folder", ["no/such/folder"]),
    ("hf://datasets/{id}", ["{id}"]),
    ("hf://user/bad..name", ["bad..name"]),
    ("stauts", ["stauts", "status"]),
    ("hf://{id}@main/a.txt", ["a.txt"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_source_that_cannot_be_mounted(box, source, words):
    repo = box.repo({"a.txt": b"a"})
    said = refusal(box, source.format(id=repo.id))
    assert all(word.format(id=repo.id) in said for word in words), said


def test_a_repository_that_needs_permission(box):
    repo = box.repo({"a.txt": b"a"}, namespace="other", private=True)
    assert repo.id in refusal(box, repo.uri)
    said = refusal(box, repo.uri, env={"HF_TOKEN": None})
    assert repo.id in said and ("hf auth login" in said or "HF_TOKEN" in said)


def test_a_disabled_repository(box, hub):
    repo = box.repo({"a.txt": b"a"})
    hub.set_repo(repo.id, disabled=True)
    said = refusal(box, repo.uri)
    assert repo.id in said and "disabled" in said


def test_a_bad_token(box):
    repo = box.repo({"a.txt": b"a"})
    said = refusal(box, repo.uri, env={"HF_TOKEN": "hf_" + "x" * 34})
    assert "token" in said


def test_no_network(box):
    repo = box.repo({"a.txt": b"a"})
    said = refusal(box, repo.uri, env={"HF_ENDPOINT": "http://127.0.0.1:1"})
    assert "127.0.0.1:1" in said


def test_a_name_that_does_not_resolve(box):
    repo = box.repo({"a.txt": b"a"})
    assert "no-such-host.invalid" in refusal(box, repo.uri, env={"HF_ENDPOINT": "https://no-such-host.invalid"})


def test_an_option_that_does_not_exist(box):
    repo = box.repo({"a.txt": b"a"})
    assert "commit_delay" in refusal(box, repo.uri, "comit_delay=3")
    assert "poll" in refusal(box, repo.uri, "poll=often")


def test_a_mountpoint_that_is_missing_or_no_folder(box):
    repo = box.repo({"a.txt": b"a"})
    missing = box.dir + "/missing"
    said = refusal(box, repo.uri, folder=missing)
    assert missing in said and "mkdir" in said
    box.run(["touch", missing])
    assert missing in refusal(box, repo.uri, folder=missing)


def test_a_mountpoint_that_is_busy(mount, box):
    m = mount(box.repo({"a.txt": b"a"}).uri)
    result = box.hugfs(m.command[0], m.dir, check=False)
    assert result.status != 0 and m.dir in result.err and len(result.err.splitlines()) == 1
    assert m.read("main/a.txt") == b"a"


def test_a_mountpoint_that_is_dead(mount, box):
    m = mount(box.repo({"a.txt": b"a"}).uri)
    m.process.kill()
    m.process.wait()
    result = box.hugfs(m.command[0], m.dir, check=False)
    assert result.status != 0 and m.dir in result.err and "fusermount3 -u" in result.err
    assert len(result.err.splitlines()) == 1
    m.kill()


NO_DEVICE = """
    mount -t tmpfs tmpfs /dev
    mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/urandom c 1 9
    {what}
    exec setpriv --reuid "$0" --regid "$1" --clear-groups -- "$2" "$3" "$4"
    """


@pytest.mark.parametrize("what, word", [
    ("true", "/dev/fuse"), ("mknod -m 600 /dev/fuse c 10 229", "/dev/fuse"),
    ("mknod -m 666 /dev/fuse c 10 229; mount --bind /dev/null /usr/bin/fusermount3", "fusermount3"),
], ids=["no device", "device for root only", "no fusermount3"])
def test_a_machine_that_cannot_mount(user_box, what, word):
    """In a mount namespace of its own, as an ordinary user."""
    box = user_box
    repo = box.repo({"a.txt": b"a"})
    folder = box.folder("point")
    account = box.account
    result = box.run(["unshare", "-m", "sh", "-ec", NO_DEVICE.format(what=what), str(account.uid), str(account.gid),
                      box.session.binary, repo.uri, folder], as_root=True, check=False)
    assert result.status != 0 and word in result.err, result
    assert len(result.err.splitlines()) == 1


def test_staging_that_belongs_to_somebody_else(box):
    repo = box.repo({"a.txt": b"a"})
    theirs = box.folder("theirs", 0o777)
    box.run(["chown", "12345", theirs], as_root=True)
    assert theirs in refusal(box, repo.uri, "staging_dir=" + theirs)


# Who may not write

def test_a_token_that_may_not_write(mount, box):
    repo = box.repo({"a.txt": b"a"})
    box.token = "reader"
    m = mount(repo.uri)
    assert m.read("main/a.txt") == b"a"
    box.expect(r"(warn|err) ")
    for attempt in ("open('main/new', 'w')", "open('main/a.txt', 'r+')", "os.unlink('main/a.txt')"):
        assert m.outcome(attempt) in ("EROFS", "EACCES"), attempt


def test_no_token_at_all_reads_and_does_not_write(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, env={"HF_TOKEN": None})
    assert m.read("main/a.txt") == b"a"
    box.expect(r"(warn|err) ")
    assert m.outcome("open('main/new', 'w')") in ("EROFS", "EACCES")


def test_a_repository_of_somebody_else(mount, box):
    repo = box.repo({"a.txt": b"a"}, namespace="other")
    m = mount("hf://")
    assert m.read(f"{repo.id}/a.txt") == b"a"
    box.expect(r"(warn|err) ")
    assert m.outcome("open(sys.argv[1], 'w')", f"{repo.id}/new") in ("EROFS", "EACCES")


# Publications that fail and succeed later

FAULTS = {
    "commit 500": dict(path="/commit/", status=500, times=2),
    "commit 503": dict(path="/commit/", status=503, times=2),
    "commit 409": dict(path="/commit/", status=409, times=2,
                       body={"error": "Another commit operation is in progress for this repository."}),
    "commit 429": dict(path="/commit/", status=429, times=1, headers={"RateLimit": '"api";r=0;t=1'}),
    "commit lost before": dict(path="/commit/", cut_after=0, times=1),
    "commit landed, lost": dict(path="/commit/", lose_answer=True, times=1),
    "commit landed, 504": dict(path="/commit/", lose_answer_status=504, times=1),
    "commit landed, 500": dict(path="/commit/", lose_answer_status=500, times=1),
    "preupload 500": dict(path="/preupload/", status=500, times=2),
    "preupload lost": dict(path="/preupload/", lose_answer=True, times=1),
    "batch 503": dict(path="/objects/batch", status=503, times=2),
    "batch lost": dict(path="/objects/batch", lose_answer=True, times=1),
    "PUT 500": dict(method="PUT", status=500, times=2),
    "PUT 403": dict(method="PUT", status=403, times=1),
    "PUT lost": dict(method="PUT", lose_answer=True, times=1),
    "verify 500": dict(path="/verify", status=500, times=2),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_while_publishing(mount, box, hub, name):
    repo = box.repo({"a.txt": b"old", "gone.txt": b"gone"})
    m = mount(repo.uri, "commit_delay=0.3")
    hub.fault(**{"method": "POST", **FAULTS[name]})
    box.expect(r"(warn|err) ")
    m.sh("rm main/gone.txt; echo new > main/a.txt")
    m.write("main/w.bin", noise(2 * MIB))
    repo.wait_published(timeout=40)
    m.unmount()
    assert len(repo.published()) == 1
    assert repo.files() == {"a.txt": b"new\n", "w.bin": noise(2 * MIB)}


@pytest.mark.parametrize("status", [500, 403])
def test_a_part_that_fails(mount, box, hub, status):
    hub.config(multipart_threshold=MIB, chunk_size=MIB)
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=0.3")
    hub.fault(origin="data", method="PUT", skip=2, status=status, times=1)
    box.expect(r"(warn|err) ")
    m.write("main/w.bin", noise(5 * MIB))
    repo.wait_published(timeout=40)
    assert repo.content("w.bin") == noise(5 * MIB)


@pytest.mark.parametrize("path", ["/commit/", "/preupload/", "/objects/batch"])
def test_a_refusal_keeps_everything_staged(mount, box, hub, path):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    hub.fault(path, method="POST", status=403, times=-1)
    box.expect(r"(warn|err) ")
    m.write("main/w.bin", noise(MIB))
    hub.wait_for(lambda items: [item for item in items if item["status"] == 403 and item["end"]], since=seq)
    harness.eventually(lambda: m.xattr("main/w.bin", "error"))
    assert m.xattr("main/w.bin", "state") == "staged"
    time.sleep(1.5)
    assert len([item for item in hub.requests(since=seq) if item["status"] == 403]) <= 3
    assert len([line for line in m.stderr().splitlines() if " err " in line or " warn " in line]) <= 3
    hub.clear_faults()
    box.hugfs("commit", m.path("main"))
    assert repo.content("w.bin") == noise(MIB)


def test_what_the_hubs_rules_refuse_is_einval(mount, box, hub):
    """README metadata that is not valid YAML; after the repair all is published."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    box.expect(r"(warn|err) ")
    assert m.py("""
        open('main/a.txt', 'w').write('new')
        with open('main/README.md', 'w') as file:
            file.write('---\\nlicense: [mit\\n---\\n')
            file.flush()
            print(outcome(os.fsync, file.fileno()))
        """) == "EINVAL\n"
    assert repo.published() == []
    m.write("main/README.md", b"---\nlicense: mit\n---\n")
    assert m.py("print(outcome(os.fsync, os.open('main/README.md', os.O_RDWR)))") == "0\n"
    assert repo.content("a.txt") == b"new" and len(repo.published()) == 1


def test_names_that_the_hub_cannot_take(mount, box):
    """Refused when they are made: one such name would hold back all that is published after it."""
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3")
    for name, errno in ((b"\xff\xfe", "EILSEQ"), (b"back\\slash", "EINVAL")):
        for call in ("open(N, 'w')", "os.mkdir(N)", "os.rename('main/a.txt', N)"):
            assert m.outcome(call.replace("N", repr(b"main/" + name))) == errno, (name, call)
    deep = "main/" + "/".join(["d" * 240] * 4)
    m.py("os.makedirs(sys.argv[1])", deep)
    assert m.outcome("open(sys.argv[1], 'w')", deep + "/" + "x" * 100) == "ENAMETOOLONG"
    m.write(deep + "/y", b"y")
    m.write("main/fine.txt", b"fine")
    repo.wait_published()
    assert "fine.txt" in repo.paths()


def test_a_branch_that_moved_keeps_ours_staged(mount, box, hub):
    repo = box.repo({"a.txt": b"old", "b.txt": b"old"})
    m = mount(repo.uri, "commit_delay=1", "poll=1")
    m.ls("main")
    m.write("main/a.txt", b"mine")
    theirs = repo.push({"a.txt": b"theirs"})
    box.expect(r"(warn|err) ")
    harness.eventually(lambda: m.xattr("main/a.txt", "error"))
    assert repo.head() == theirs
    assert m.read("main/a.txt") == b"mine"
    m.unmount()
    m.restart()
    assert m.read("main/a.txt") == b"mine" and repo.head() == theirs
    box.hugfs("discard", "-y", m.path("main"))
    harness.eventually(lambda: m.read("main/a.txt") == b"theirs")
    m.write("main/b.txt", b"after")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"theirs", "b.txt": b"after"}


def test_a_repository_that_is_gone(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=60")
    m.write("main/a.txt", b"mine")
    hub.delete_repo(repo.id)
    box.expect(r"(warn|err) ")
    assert m.py("print(outcome(os.fsync, os.open('main/a.txt', os.O_RDWR)))") == "ESTALE\n"
    assert m.read("main/a.txt") == b"mine"


def test_a_repository_that_was_made_anew(mount, box, hub):
    """Another repository under the same name never gets what was staged for the first."""
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit=manual")
    m.write("main/a.txt", b"for the first")
    m.unmount()
    hub.delete_repo(repo.id)
    hub.create_repo(repo.id)
    hub.commit(repo.id, {"a.txt": b"second"})
    repo.mark()
    box.expect(r"(warn|err) ")
    m.restart("commit_delay=0.2")
    assert m.outcome("open('main/x', 'w')") == "ESTALE"
    assert m.read("main/a.txt") == b"second" and repo.id in m.stderr()
    time.sleep(1)
    assert repo.published() == []


def test_the_hub_is_away_for_a_while(mount, box, hub):
    repo = box.repo({"a.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.3")
    fault = hub.fault("/api/", lose_answer=True, times=-1, method="POST")
    box.expect(r"(warn|err) ")
    seq = hub.last_seq()
    m.write("main/new.txt", b"new")
    hub.wait_for(lambda items: len([item for item in items if item["method"] == "POST"]) >= 2, since=seq)
    assert m.read("main/new.txt") == b"new"
    hub.clear_faults(fault)
    harness.eventually(lambda: "new.txt" in repo.paths(), 40)
    m.unmount()
    assert len(repo.published()) == 1
