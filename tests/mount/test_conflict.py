"""Somebody else pushed what is changed here too: nothing is overwritten, nothing is lost, the user decides."""

import json

import pytest

import harness

KEPT = "somebody else changed"


def status(box, m, path="main"):
    answer = json.loads(box.hugfs("status", "--json", m.path(path)).out)
    return answer["mounts"][0]["revisions"][0]


def states(box, m):
    return {change["path"]: change["state"] for change in status(box, m)["changes"]}


def conflicted(mount, box, *options):
    """A mount whose commit of a.txt and new.txt met a push of a.txt."""
    box.expect(KEPT)
    repo = box.repo({"a.txt": b"1", "b.txt": b"2"})
    m = mount(repo.uri, "commit=manual", *options)
    m.sh("echo mine > main/a.txt; echo new > main/new.txt")
    repo.push({"a.txt": b"theirs"})
    result = box.hugfs("commit", m.path("main"), check=False)
    assert result.status == 1 and "a.txt" in result.err and "--on-conflict" in result.err
    return repo, m


def test_both_are_kept_and_the_rest_goes_on(mount, box):
    repo, m = conflicted(mount, box)
    assert repo.files() == {"a.txt": b"theirs", "b.txt": b"2"}
    assert states(box, m) == {"a.txt": "conflict", "new.txt": "conflict"}
    assert m.xattr("main/a.txt", "state") == "conflict" and m.read("main/a.txt") == b"mine\n"
    m.sh("echo later > main/later.txt; rm main/b.txt")
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {"a.txt": b"theirs", "later.txt": b"later\n"}
    assert status(box, m)["staged"]["conflicts"] == 2
    # kill -9 does not forget it
    m.kill()
    m.restart()
    assert states(box, m) == {"a.txt": "conflict", "new.txt": "conflict"}
    assert m.read("main/a.txt") == b"mine\n" and repo.files() == {"a.txt": b"theirs", "later.txt": b"later\n"}


def test_ours_goes_on_top(mount, box):
    repo, m = conflicted(mount, box)
    m.sh("echo mine again > main/a.txt")  # it stays in conflict, with its newest bytes
    box.hugfs("commit", m.path("main"))
    assert repo.content("a.txt") == b"theirs"
    box.hugfs("commit", "--on-conflict=ours", m.path("main"))
    assert repo.files() == {"a.txt": b"mine again\n", "b.txt": b"2", "new.txt": b"new\n"}
    assert states(box, m) == {}


def test_discard_shows_theirs(mount, box):
    repo, m = conflicted(mount, box)
    box.hugfs("discard", "-y", m.path("main/a.txt"))
    assert m.read("main/a.txt") == b"theirs"
    assert states(box, m) == {"new.txt": "conflict"}
    box.hugfs("discard", "-y", m.path("main"))
    assert m.files("main") | {".gitattributes": b""} == {"a.txt": b"theirs", "b.txt": b"2", ".gitattributes": b""}
    m.sh("echo over theirs > main/a.txt")
    box.hugfs("commit", m.path("main"))
    assert repo.content("a.txt") == b"over theirs\n"


def test_a_fsync_says_estale_every_time(mount, box):
    box.expect(KEPT)
    repo = box.repo({"a.txt": b"1", "b.txt": b"2"})
    m = mount(repo.uri, "commit=fsync")
    assert m.read("main/a.txt") == b"1"
    repo.push({"a.txt": b"theirs"})
    assert m.py("""
        fd = os.open('main/a.txt', os.O_WRONLY | os.O_APPEND)
        os.write(fd, b'mine')
        print(outcome(os.fsync, fd), outcome(os.fsync, fd))
        other = os.open('main/b.txt', os.O_WRONLY)
        os.write(other, b'3')
        print(outcome(os.fsync, other))
        """) == "ESTALE ESTALE\n0\n"
    assert repo.files() == {"a.txt": b"theirs", "b.txt": b"3"}


@pytest.mark.parametrize("ours, theirs", [
    ("rm main/a.txt", {"a.txt": b"theirs"}),
    ("echo mine > main/a.txt", {"a.txt": None}),
    ("mv main/a.txt main/moved.txt", {"a.txt": b"theirs"}),
    ("echo file > main/thing", {"thing/below": b"theirs"}),
    ("mkdir main/thing; echo file > main/thing/below", {"thing": b"theirs"}),
    ("rm -r main/d", {"d/x.txt": b"theirs"}),
    ("rm -r main/d", {"d/new.txt": b"theirs"}),
    ("mv main/d main/e", {"d/new.txt": b"theirs"}),
    ("mv main/d main/e", {"e/x.txt": b"theirs"}),
], ids=["delete-change", "change-delete", "rename-change", "file-folder", "folder-file", "deleted-folder-change",
        "deleted-folder-new", "renamed-folder-new", "renamed-folder-taken"])
def test_every_kind(mount, box, ours, theirs):
    box.expect(KEPT)
    repo = box.repo({"a.txt": b"1", "b.txt": b"2", "d/x.txt": b"3", "d/y.txt": b"4"})
    m = mount(repo.uri, "commit=manual")
    m.sh(ours)
    repo.push(theirs)
    pushed = repo.files()
    assert box.hugfs("commit", m.path("main"), check=False).status == 1
    assert repo.files() == pushed
    m.sh("echo free > main/free.txt")
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {**pushed, "free.txt": b"free\n"}
    seen = m.files("main")
    box.hugfs("commit", "--on-conflict=ours", m.path("main"))
    left = {path: data for path, data in repo.files().items() if path != "free.txt"}
    seen = {path: data for path, data in seen.items() if path not in ("free.txt", ".gitattributes")}
    # What the mount showed is there; files of theirs that it did not show are never deleted with a folder of ours.
    assert seen.items() <= left.items()
    assert states(box, m) == {}


def test_on_conflict_ours_needs_nobody(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "on_conflict=ours", "commit_delay=0.3")
    m.read("main/a.txt")
    repo.push({"a.txt": b"theirs"})
    m.sh("echo mine > main/a.txt")
    harness.eventually(lambda: repo.content("a.txt") == b"mine\n", 10)
    assert len(repo.published()) == 1
