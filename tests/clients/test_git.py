"""git and git-lfs, unmodified: clone, pull, push, fetch, fsck."""

import os

import pytest
from client import Hub
from examiner import FILES, read_tree


def clone_url(hub, repo, token=None, suffix=""):
    login = f"user:{token}@" if token else ""
    return hub.endpoint.replace("://", "://" + login) + f"/{repo}{suffix}"


@pytest.mark.parametrize("suffix", ["", ".git"])
def test_git_clone_and_lfs_pull(hub, filled, git, tmp_path, suffix):
    repo, files = filled
    hub.tag(repo, "v1")
    git("clone", clone_url(hub, repo, suffix=suffix), "work")
    git("lfs", "pull", cwd=tmp_path / "work")
    assert read_tree(tmp_path / "work") == files
    assert git("rev-parse", "HEAD", "v1", cwd=tmp_path / "work").split() == [hub.head(repo)] * 2
    git("fetch", "origin", "refs/heads/main", cwd=tmp_path / "work")
    assert hub.git(repo, "fsck", "--strict") == b""
    assert git("lfs", "fsck", cwd=tmp_path / "work").strip().endswith("OK")


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_git_clone_of_other_types(hub, new_id, git, tmp_path, kind):
    hub.create_repo(new_id, kind)
    hub.commit(new_id, {"a.txt": b"a", "w.bin": b"\0" * 100}, type=kind)
    git("clone", clone_url(hub, f"{kind}s/{new_id}"), "work")
    assert read_tree(tmp_path / "work") == {"a.txt": b"a", "w.bin": b"\0" * 100}


def test_git_clone_of_a_private_repo_needs_the_token(hub, filled, git, tmp_path):
    repo, files = filled
    hub.set_repo(repo, private=True)
    assert git("clone", clone_url(hub, repo), "refused", check=False).returncode != 0
    assert git("clone", clone_url(hub, repo, hub.tokens["other"]), "refused", check=False).returncode != 0
    git("clone", clone_url(hub, repo, hub.tokens["user"]), "work")
    assert read_tree(tmp_path / "work") == files


def test_git_push_is_seen_by_the_api(hub, filled, git, tmp_path):
    repo, _ = filled
    git("clone", clone_url(hub, repo, hub.tokens["user"]), "work")
    (tmp_path / "work" / "pushed.txt").write_bytes(b"pushed")
    (tmp_path / "work" / "pushed.bin").write_bytes(b"\0" * 1000)
    (tmp_path / "work" / "large.txt").write_text(os.urandom(4_000_000).hex())
    git("add", ".", cwd=tmp_path / "work")
    git("commit", "-m", "by git", cwd=tmp_path / "work")
    git("push", cwd=tmp_path / "work")
    assert hub.history(repo)[0][1] == "by git"
    tree = {item["path"]: item for item in hub.call("GET", f"{hub.api(repo)}/tree/main")}
    assert tree["pushed.txt"]["size"] == 6
    assert tree["pushed.bin"]["lfs"]["size"] == 1000
    assert git("push", clone_url(hub, repo, hub.tokens["reader"]), cwd=tmp_path / "work", check=False).returncode != 0


def test_state_survives_a_restart_and_a_gc():
    """Also with all objects and refs packed by `git gc`, under a running Hub and a new one."""
    with Hub() as hub:
        hub.create_repo("user/model", private=True)
        hub.commit("user/model", {**FILES, "w.bin": b"\0" * 1000})
        hub.tag("user/model", "v1", message="annotated")
        for _ in range(2):
            hub.git("user/model", "gc", "--quiet")
            assert hub.head("user/model", "v1") == hub.history("user/model", "v1")[0][0]
            assert hub.request("GET", "/user/model/raw/main/config.json").body == FILES["config.json"]
            head = hub.commit("user/model", {"more.txt": os.urandom(8)}, parent=hub.head("user/model"))
            assert hub.history("user/model")[0][0] == head
            assert hub.git("user/model", "fsck", "--strict") == b""
            hub.stop(keep=True)
            hub.start()
        assert hub.content("user/model", "w.bin") == b"\0" * 1000
        assert hub.request("GET", "/api/models/user/model", token="other").status == 404
