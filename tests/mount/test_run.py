"""hugfs run: everything that a program changes is one commit, or none of it; whoever is killed, nothing is lost."""

import json
import signal
import time

import harness

HELD = "found .* staged|held"


def status(box, m, path="main"):
    answer = json.loads(box.hugfs("status", "--json", m.path(path)).out)
    return answer["mounts"][0]["revisions"][0]


def writes(hub, seq):
    return [item for item in hub.requests(since=seq) if item["method"] in ("POST", "PUT")]


def shell(box, m, script, *options, check=True, **more):
    return box.hugfs("run", *options, m.path("main"), "--", "sh", "-euc", f"cd {m.dir}/main; {script}", check=check,
                     **more)


def test_one_commit_for_all_of_it(mount, box, hub):
    repo = box.repo({"a.txt": b"1", "old.bin": b"old"})
    m = mount(repo.uri, "commit_delay=0.2")
    m.ls("main")
    seq = hub.last_seq()
    result = shell(box, m, "echo one > one; sleep 1; rm old.bin; mkdir -p d/e; echo two > d/e/two; sleep 1; "
                   f"mv a.txt b.txt; python3 -c 'import os; fd = os.open(\"three\", os.O_CREAT | os.O_WRONLY); os.write(fd, b\"3\"); "
                   "os.fsync(fd); os.fsync(os.open(\".\", os.O_RDONLY))'", "-m", "All of it", "-m", "At once")
    commits = repo.published()
    assert len(commits) == 1 and f"/commit/{commits[0]}" in result.out
    assert repo.files() == {"b.txt": b"1", "one": b"one\n", "d/e/two": b"two\n", "three": b"3"}
    assert len([item for item in writes(hub, seq) if "/commit/" in item["path"]]) == 1
    assert status(box, m)["transaction"] == "" and status(box, m)["staged"]["files"] == 0
    # Nothing changed: no commit.
    shell(box, m, "cat one")
    assert len(repo.published()) == 1
    m.sh("echo later > main/later")
    repo.wait_published(2)


def test_what_was_settled_is_published_first(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit=manual")
    m.sh("echo before > main/before")
    shell(box, m, "test -f before; echo during > during")
    first, second = repo.published()
    assert repo.changes(first) == {"before": "A"} and repo.changes(second) == {"during": "A"}


def test_a_failed_program_leaves_it_held(mount, box, hub):
    repo = box.repo({"a.txt": b"1", "b.txt": b"2"})
    m = mount(repo.uri, "commit_delay=0.2")
    m.sh("echo junk > main/x.tmp")
    seq = hub.last_seq()
    result = shell(box, m, "echo changed > a.txt; rm b.txt; echo new > new; echo other > x.tmp; exit 7", check=False)
    assert result.status == 7 and "held" in result.err
    assert status(box, m)["transaction"] == "held"
    time.sleep(1)
    assert writes(hub, seq) == [] and repo.published() == []
    # A fsync there is local, another run is refused, and so it is after a remount.
    assert m.py("print(outcome(os.fsync, os.open('main/new', os.O_WRONLY)))") == "0\n"
    again = shell(box, m, "true", check=False)
    assert again.status == 1 and "discard" in again.err
    m.unmount()
    assert repo.published() == []
    m.restart()
    time.sleep(0.8)
    assert repo.published() == [] and status(box, m)["transaction"] == "held"
    assert m.read("main/a.txt") == b"changed\n"
    box.hugfs("discard", "-y", m.path("main"))
    assert {path: data for path, data in m.files("main").items() if path != ".gitattributes"} == {
        "a.txt": b"1", "b.txt": b"2", "x.tmp": b"junk\n"}
    assert status(box, m)["transaction"] == ""
    m.sh("echo after > main/after")
    repo.wait_published()
    assert repo.files() == {"a.txt": b"1", "b.txt": b"2", "after": b"after\n"}


def test_umount_leaves_what_is_held(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.2")
    assert shell(box, m, "echo new > new; exit 1", check=False).status == 1
    result = box.hugfs("umount", m.dir, check=False)
    assert result.status == 3 and "held" in result.err and "new" in result.out + result.err
    m.process.wait(10)
    m.restart()
    assert repo.published() == [] and status(box, m)["transaction"] == "held" and m.read("main/new") == b"new\n"


def test_what_is_held_goes_back_as_a_whole(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.2")
    assert shell(box, m, "mkdir d; echo one > d/one; echo two > two; exit 1", check=False).status == 1
    refused = box.hugfs("discard", "-y", m.path("main/d/one"), check=False)
    assert refused.status == 1 and "as a whole" in refused.err
    assert m.read("main/d/one") == b"one\n" and m.read("main/two") == b"two\n"
    box.hugfs("discard", "-y", m.path("main"))
    assert status(box, m)["transaction"] == "" and not m.exists("main/d") and not m.exists("main/two")
    # Also when nothing was changed.
    assert shell(box, m, "exit 1", check=False).status == 1
    box.hugfs("discard", m.path("main"))
    assert status(box, m)["transaction"] == ""


def test_a_held_conflict_becomes_a_pull_request(mount, box):
    box.expect("proposed as")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "on_conflict=pr")
    assert shell(box, m, "echo mine > a.txt; echo local > x.tmp; exit 1", check=False).status == 1
    repo.push({"a.txt": b"theirs"})
    assert box.hugfs("commit", m.path("main")).out.strip().endswith("/discussions/1")
    assert repo.content("a.txt", "refs/pr/1") == b"mine\n"
    assert m.read("main/a.txt") == b"theirs" and m.read("main/x.tmp") == b"local\n"


def test_a_conflict_of_a_run_becomes_a_pull_request(mount, box):
    box.expect("proposed as")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "on_conflict=pr")
    child = box.spawn([box.session.binary, "run", m.path("main"), "--", harness.PYTHON, "-uc",
                       f"open('{m.dir}/main/a.txt', 'w').write('mine'); print('written'); input()"])
    child.expect("written")
    repo.push({"a.txt": b"theirs"})
    child.tell()
    assert child.wait() == 0
    child.close()
    assert repo.content("a.txt", "refs/pr/1") == b"mine" and m.read("main/a.txt") == b"theirs"
    assert status(box, m)["transaction"] == "" and status(box, m)["staged"]["files"] == 0


def test_held_is_published_when_asked(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri)
    assert shell(box, m, "echo kept > kept; exit 1", check=False).status == 1
    box.hugfs("commit", "-m", "After all", m.path("main"))
    assert repo.files() == {"a.txt": b"1", "kept": b"kept\n"} and status(box, m)["transaction"] == ""


def test_discard_at_once(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.2")
    result = shell(box, m, "echo changed > a.txt; echo new > new; exit 3", "--discard", check=False)
    assert result.status == 3
    assert m.read("main/a.txt") == b"1" and not m.exists("main/new") and status(box, m)["transaction"] == ""
    time.sleep(0.6)
    assert repo.published() == []


def test_a_killed_run_is_held(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.2")
    child = box.spawn([box.session.binary, "run", m.path("main"), "--", harness.PYTHON, "-uc",
                       f"open('{m.dir}/main/half', 'w').write('half'); print('written'); input()"])
    child.expect("written")
    # Meanwhile nobody else gets a commit or another one.
    refused = box.hugfs("commit", m.path("main"), check=False)
    assert refused.status == 1 and "under way" in refused.err
    assert "under way" in shell(box, m, "true", check=False).err
    assert box.hugfs("discard", "-y", m.path("main"), check=False).status == 1
    assert status(box, m)["transaction"] == "running"
    child.signal(signal.SIGKILL)
    child.wait()
    harness.eventually(lambda: status(box, m)["transaction"] == "held", 5)
    child.close()
    time.sleep(0.6)
    assert repo.published() == [] and m.read("main/half") == b"half"


def test_a_killed_daemon_holds_it(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.2")
    child = box.spawn([box.session.binary, "run", m.path("main"), "--", harness.PYTHON, "-uc",
                       f"open('{m.dir}/main/half', 'w').write('half'); print('written'); input()"])
    child.expect("written")
    m.kill()
    child.tell()
    assert child.wait() != 0
    child.close()
    m.restart()
    time.sleep(0.8)
    assert repo.published() == [] and status(box, m)["transaction"] == "held" and m.read("main/half") == b"half"
    box.hugfs("discard", "-y", m.path("main"))
    assert m.files("main").keys() - {".gitattributes"} == {"a.txt"}


def test_a_run_whose_commit_is_refused_is_held(mount, box, hub):
    box.expect("403|not published")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri)
    hub.fault(f"/{repo.id}/commit/", method="POST", status=403)
    result = shell(box, m, "echo new > new", check=False)
    assert result.status == 1 and "held" in result.err and status(box, m)["transaction"] == "held"
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {"a.txt": b"1", "new": b"new\n"}


def test_a_pull_request(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri)
    result = shell(box, m, "echo new > new", "--pr", "-m", "Mine")
    assert result.out.strip().endswith("/discussions/1")
    assert repo.files() == {"a.txt": b"1"} and repo.content("new", "refs/pr/1") == b"new\n"


def test_other_branches_go_on(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    hub.branch(repo.id, "dev")
    repo.mark("dev")
    m = mount(repo.uri, "commit_delay=0.2")
    result = shell(box, m, "echo x > x; echo y > ../dev/y; sleep 1.5; exit 1", check=False)
    assert result.status == 1 and repo.published() == []
    harness.eventually(lambda: "y" in repo.paths("dev"), 5)
