"""The unmodified huggingface_hub client: HfFileSystem, which names everything repo@revision/path."""

import os

import pytest
from examiner import Counted
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import EntryNotFoundError

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def files(hub):
    """A file system with an empty cache."""
    return Counted(HfFileSystem(skip_instance_cache=True), "HfFileSystem")


@pytest.fixture
def full(hub, repo):
    """A repository with nested folders, LFS and regular files."""
    hub.commit(
        repo,
        {"a.txt": b"0123456789", "w.bin": CONTENT, "d/b.txt": b"b", "d/e/c.txt": b"c", "d/e/f/g.bin": b"\0"},
    )
    return repo


def test_ls_and_info(hub, files, full):
    assert sorted(files.ls(full, detail=False)) == [
        f"{full}/{name}" for name in (".gitattributes", "a.txt", "d", "w.bin")
    ]
    listed = {item["name"]: item for item in files.ls(f"{full}/d")}
    assert {name: item["type"] for name, item in listed.items()} == {
        f"{full}/d/b.txt": "file",
        f"{full}/d/e": "directory",
    }
    assert (files.info(f"{full}/w.bin")["size"], files.info(full)["type"]) == (len(CONTENT), "directory")
    info = files.info(f"{full}/w.bin", expand_info=True, refresh=True)
    assert info["last_commit"].oid == hub.head(full)
    assert (info["lfs"]["size"], files.size(f"{full}/a.txt")) == (len(CONTENT), 10)
    with pytest.raises(FileNotFoundError):
        files.info(f"{full}/missing")
    with pytest.raises(FileNotFoundError):
        files.ls("user/unknown")


def test_questions(hub, files, full):
    assert files.exists(f"{full}/d/e") and files.exists(f"{full}/a.txt") and not files.exists(f"{full}/x")
    assert files.isdir(f"{full}/d") and not files.isdir(f"{full}/a.txt")
    assert files.isfile(f"{full}/a.txt") and not files.isfile(f"{full}/d")
    assert files.modified(f"{full}/a.txt").year >= 2022
    assert files.url(f"{full}/a.txt") == f"{hub.endpoint}/{full}/resolve/main/a.txt"
    assert files.checksum(f"{full}/a.txt") != files.checksum(f"{full}/w.bin")


@pytest.mark.parametrize("page_size", [None, 2])
def test_find_walk_glob_du(hub, files, repo, page_size):
    """With small pages 2.x drops the listing and goes on in the sub-folders at once."""
    names = [f"d{n}/e{m}/f{k}.txt" for n in range(4) for m in range(3) for k in range(3)]
    hub.commit(repo, {name: b"12" for name in names})
    hub.config(page_size=page_size)
    assert sorted(files.find(repo, detail=False)) == [f"{repo}/.gitattributes"] + [
        f"{repo}/{name}" for name in names
    ]
    assert len(files.find(f"{repo}/d1", withdirs=True)) == 3 * 3 + 3 + 1
    walked = {root: (sorted(folders), sorted(found)) for root, folders, found in files.walk(f"{repo}/d2")}
    assert walked[f"{repo}/d2"] == (["e0", "e1", "e2"], [])
    assert walked[f"{repo}/d2/e1"] == ([], ["f0.txt", "f1.txt", "f2.txt"])
    assert sorted(files.glob(f"{repo}/*/e1/f2.txt")) == [f"{repo}/d{n}/e1/f2.txt" for n in range(4)]
    assert files.du(f"{repo}/d3") == 18


def test_open_seek_and_ranges(hub, files, full):
    since = hub.last_seq()
    with files.open(f"{full}/w.bin", block_size=1000) as file:
        assert file.read(10) == CONTENT[:10]
        file.seek(50_000)
        assert file.read(10) == CONTENT[50_000:50_010]
        file.seek(-5, 2)
        assert (file.read(), file.tell(), file.read()) == (CONTENT[-5:], len(CONTENT), b"")
    ranged = hub.requests(since, origin="data", method="GET")
    assert ranged and all(item["status"] == 206 and item["sent"] < 10_000 for item in ranged)
    assert files.cat_file(f"{full}/w.bin", start=300, end=310) == CONTENT[300:310]
    assert files.cat_file(f"{full}/a.txt", start=-4) == b"6789"
    assert files.cat([f"{full}/a.txt", f"{full}/d/b.txt"]) == {
        f"{full}/a.txt": b"0123456789",
        f"{full}/d/b.txt": b"b",
    }
    assert (files.head(f"{full}/a.txt", 3), files.tail(f"{full}/a.txt", 3)) == (b"012", b"789")
    with files.open(f"{full}/w.bin", block_size=0) as stream:
        assert stream.read() == CONTENT
    with files.open(f"{full}/a.txt", "r") as text:
        assert text.read() == "0123456789"


def test_revisions(hub, files, full):
    hub.branch(full, "feature/x")
    hub.commit(full, {"a.txt": b"other"}, branch="feature/x")
    hub.commit(full, {"a.txt": b"proposed"}, create_pr=True)
    first = hub.head(full)
    hub.commit(full, {"a.txt": b"newest"})
    for revision, content in ((first, b"0123456789"), ("feature%2Fx", b"other"), ("refs/pr/1", b"proposed")):
        assert files.read_bytes(f"{full}@{revision}/a.txt") == content
    assert files.read_bytes(f"hf://{full}/a.txt") == b"newest"
    assert files.read_bytes(f"{full}/a.txt", revision="feature/x") == b"other"


def test_write(hub, files, repo):
    with files.open(f"{repo}/new/t.txt", "w") as file:
        file.write("written")
    files.pipe_file(f"{repo}/w.bin", CONTENT)
    files.write_text(f"{repo}/x.txt", "x")
    assert hub.content(repo, "new/t.txt") == b"written"
    assert hub.content(repo, "w.bin") == CONTENT
    assert hub.blob(repo, "w.bin").startswith(b"version https://git-lfs")
    assert len(hub.history(repo)) == 4
    with files.open(f"{repo}@main/dir/y.txt", "wb") as file:
        file.write(b"y")
    assert "dir/y.txt" in hub.paths(repo)


def test_copy_move_remove(hub, files, full, new_id):
    files.cp_file(f"{full}/w.bin", f"{full}/copies/w.bin")
    files.copy(f"{full}/a.txt", f"{full}/copies/a.txt")
    assert hub.content(full, "copies/w.bin") == CONTENT
    assert hub.content(full, "copies/a.txt") == b"0123456789"
    before = len(hub.history(full))
    files.mv(f"{full}/copies/a.txt", f"{full}/moved.txt")
    assert len(hub.history(full)) == before + 2
    files.rm(f"{full}/copies/w.bin")
    files.rm(f"{full}/d/e", recursive=True)
    assert sorted(hub.paths(full)) == [".gitattributes", "a.txt", "d/b.txt", "moved.txt", "w.bin"]
    with pytest.raises(EntryNotFoundError):
        files.rm(f"{full}/missing")
    hub.create_repo(new_id, "dataset")
    files.cp_file(f"{full}/a.txt", f"datasets/{new_id}/a.txt")
    assert hub.content(new_id, "a.txt", type="dataset") == b"0123456789"


def test_get_and_put(hub, files, full, tmp_path):
    files.get_file(f"{full}/w.bin", str(tmp_path / "w.bin"))
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    files.get(f"{full}/d", str(tmp_path / "d"), recursive=True)
    assert (tmp_path / "d" / "e" / "c.txt").read_bytes() == b"c"
    big = os.urandom(6_200_000)
    (tmp_path / "big.bin").write_bytes(big)
    files.put_file(str(tmp_path / "big.bin"), f"{full}/up/big.bin")
    assert hub.content(full, "up/big.bin") == big


def test_reading_survives_errors_of_the_hub(hub, files, full):
    hub.fault("/resolve/", method="GET", status=503)
    assert files.cat_file(f"{full}/w.bin", start=0, end=5) == CONTENT[:5]
    assert hub.faults()[0]["hits"] == 1


def test_another_writers_commit_is_seen_after_a_refresh(hub, files, full):
    files.ls(full)
    hub.commit(full, {"late.txt": b"late"})
    assert f"{full}/late.txt" not in files.ls(full, detail=False)
    files.invalidate_cache()
    assert f"{full}/late.txt" in files.ls(full, detail=False)
