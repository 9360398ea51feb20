"""The official client's downloads, and git: clone, lfs pull, push, fsck."""

import os
import pathlib
import subprocess
import sys

import pytest
from client import Hub
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

FILES = {
    "README.md": b"# A model\n",
    "config.json": b"{}\n",
    "empty.txt": b"",
    "nested/deeper/a b#c?%25.txt": b"evil\n",
    "ünïcode/naïve.txt": "ü".encode(),
}


@pytest.fixture
def filled(hub, repo):
    """A repository with FILES and two LFS files; (id, {path: content})."""
    files = {**FILES, "model.safetensors": os.urandom(300_000), "nested/w.bin": os.urandom(10)}
    hub.commit(repo, files)
    return repo, files


def read_tree(folder):
    root = pathlib.Path(folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
            if path.is_file() and ".git" not in path.parts and path.name != ".gitattributes"}


@pytest.mark.parametrize("private", [False, True])
def test_hf_hub_download(hub, filled, private, tmp_path):
    repo, files = filled
    hub.set_repo(repo, private=private)
    for name, content in files.items():
        path = hf_hub_download(repo, name, cache_dir=tmp_path)
        assert pathlib.Path(path).read_bytes() == content
        assert hub.head(repo) in path


def test_hf_hub_download_of_what_is_missing(filled, tmp_path):
    repo, _ = filled
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo, "missing.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repo, "config.json", revision="nowhere", cache_dir=tmp_path)
    with pytest.raises((EntryNotFoundError, LocalEntryNotFoundError)):
        hf_hub_download(repo, "nested", cache_dir=tmp_path)


@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/1", "feature/x", "refs/convert/parquet", "commit"])
def test_snapshot_download(hub, filled, revision, tmp_path):
    repo, files = filled
    hub.tag(repo, "v1", message="annotated")
    hub.branch(repo, "feature/x")
    hub.set_ref(repo, "refs/convert/parquet", "main")
    hub.call("POST", f"{hub.api(repo)}/discussions", {"title": "pull request", "pullRequest": True})
    revision = hub.head(repo) if revision == "commit" else revision
    folder = snapshot_download(repo, revision=revision, cache_dir=tmp_path)
    assert read_tree(folder) == files
    since = hub.last_seq()
    assert snapshot_download(repo, revision=revision, cache_dir=tmp_path) == folder
    assert all("/revision/" in item["path"] for item in hub.requests(since))


def test_download_resumes_after_a_cut(hub, filled, tmp_path):
    repo, files = filled
    since = hub.last_seq()
    hub.fault(origin="data", method="GET", cut_after=100_000)
    path = hf_hub_download(repo, "model.safetensors", cache_dir=tmp_path)
    assert pathlib.Path(path).read_bytes() == files["model.safetensors"]
    assert len(hub.requests(since, origin="data", method="GET")) == 2


def test_command_line(hub, new_id, tmp_path):
    """`hf upload` and `hf download` in processes of their own."""
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "w.safetensors").write_bytes(os.urandom(50_000))
    (tmp_path / "up" / "t.txt").write_bytes(b"t")
    hf = str(pathlib.Path(sys.executable).with_name("hf"))
    subprocess.run([hf, "upload", new_id, tmp_path / "up", "--private", "--quiet"], check=True)
    subprocess.run([hf, "upload", new_id, tmp_path / "up", "--revision", "new/branch", "--quiet"], check=True)
    subprocess.run([hf, "download", new_id, "--local-dir", tmp_path / "down", "--quiet"], check=True)
    assert (tmp_path / "down" / "w.safetensors").read_bytes() == (tmp_path / "up" / "w.safetensors").read_bytes()
    assert hub.head(new_id, "new/branch") == hub.head(new_id)


# git

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
