"""The unmodified `hf` command, in processes of its own."""

import json
import os

import pytest
from examiner import read_tree
from huggingface_hub import __version__


@pytest.fixture
def folder(tmp_path):
    """A folder to upload, and what it holds."""
    files = {"t.txt": b"t", "w.safetensors": os.urandom(50_000), "sub/x.log": b"x", "sub/y.txt": b"y"}
    for name, content in files.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(content)
    return tmp_path / "up", files


def test_upload_and_download(hub, hf, new_id, folder, tmp_path):
    """A folder makes its repository; to a branch that is new, it makes the branch."""
    path, files = folder
    hf("upload", new_id, path, "--private", "--quiet")
    hf("upload", new_id, path, "--revision", "new/branch", "--quiet")
    hf("download", new_id, "--local-dir", tmp_path / "down", "--quiet")
    assert {name: (tmp_path / "down" / name).read_bytes() for name in files} == files
    assert hub.head(new_id, "new/branch") == hub.head(new_id)


def test_upload_parts(hub, hf, new_id, folder, tmp_path):
    path, files = folder
    hf(
        "upload",
        new_id,
        path / "w.safetensors",
        "deep/w.safetensors",
        "--type",
        "dataset",
        "--commit-message",
        "Weights",
    )
    assert hub.history(new_id, type="dataset")[0][1] == "Weights"
    hf(
        "upload",
        new_id,
        path,
        ".",
        "--type",
        "dataset",
        "--include",
        "sub/*",
        "--exclude",
        "*.log",
        "--delete",
        "deep/*",
    )
    assert hub.paths(new_id, type="dataset") == [".gitattributes", "sub/y.txt"]
    hf("upload", new_id, path / "t.txt", "--type", "dataset", "--create-pr")
    assert hub.content(new_id, "t.txt", "refs/pr/1", type="dataset") == b"t"
    hf(
        "download",
        new_id,
        "t.txt",
        "--type",
        "dataset",
        "--revision",
        "refs/pr/1",
        "--local-dir",
        tmp_path / "down",
    )
    assert (tmp_path / "down" / "t.txt").read_bytes() == b"t"


def test_download_into_the_cache(hub, hf, filled, tmp_path):
    repo, files = filled
    hf("download", repo, "--cache-dir", tmp_path, "--dry-run")
    assert not list(tmp_path.rglob("config.json"))
    hf("download", repo, "--cache-dir", tmp_path, "--quiet")
    (snapshot,) = tmp_path.glob("models--*/snapshots/*")
    assert read_tree(snapshot) == files
    hf("cache", "verify", repo, "--cache-dir", tmp_path, words=2)
    assert repo in hf("cache", "ls", "--cache-dir", tmp_path, "--json", words=2)
    hf("download", repo, "--include", "*.json", "--local-dir", tmp_path / "some")
    assert [path.name for path in (tmp_path / "some").iterdir() if path.is_file()] == ["config.json"]


def test_auth(hub, hf, tmp_path):
    """Log in with a token into a home of one's own, and be somebody there without HF_TOKEN."""
    assert "user" in hf("auth", "whoami", words=2)
    home = {"HF_HOME": str(tmp_path), "HF_TOKEN": "", "HOME": str(tmp_path)}
    hf("auth", "login", "--token", hub.tokens["other"], words=2, env=home)
    assert "other" in hf("auth", "whoami", words=2, env=home)
    assert (tmp_path / "token").read_text().strip() == hub.tokens["other"]
    hf("auth", "logout", words=2, env=home)
    assert not (tmp_path / "token").exists()


def test_repos(hub, hf, new_id):
    hf("repos", "create", new_id, "--private", words=2)
    hf("repos", "create", new_id, "--exist-ok", words=2)
    hub.commit(new_id, {"a.txt": b"a", "b.log": b"b", "w.bin": bytes(100)})
    hf("repos", "delete-files", new_id, "*.log", words=2)
    assert hub.paths(new_id) == [".gitattributes", "a.txt", "w.bin"]
    hf("repos", "settings", new_id, "--public", "--gated", "auto", words=2)
    assert hub.call("GET", hub.api(new_id))["gated"] == "auto"
    hf("repos", "settings", new_id, "--gated", "false", words=2)
    assert new_id in hf("repos", "ls", "--limit", "1000", "--json", words=2)
    hf("repos", "move", new_id, new_id + "-moved", words=2)
    hf("repos", "duplicate", new_id + "-moved", new_id + "-copy", "--private", words=2)
    assert hub.content(new_id + "-copy", "w.bin") == bytes(100)
    hf("repos", "delete", new_id + "-moved", "--yes", words=2)
    assert hub.request("GET", hub.api(new_id + "-moved")).status == 404


def test_branches_and_tags(hub, hf, repo):
    hf("repos", "branch", "create", repo, "dev/x", words=3)
    head = hub.commit(repo, {"a.txt": b"a"}, branch="dev/x")
    hf("repos", "tag", "create", repo, "v1", "--revision", "dev/x", "-m", "first", words=3)
    assert hub.head(repo, "v1") == head
    assert "v1" in hf("repos", "tag", "list", repo, words=3)
    hf("repos", "tag", "delete", repo, "v1", "--yes", words=3)
    hf("repos", "branch", "delete", repo, "dev/x", words=3)
    refs = hub.call("GET", hub.api(repo) + "/refs")
    assert ([ref["name"] for ref in refs["branches"]], refs["tags"]) == (["main"], [])


def test_information(hub, hf, filled):
    repo, _ = filled
    assert json.loads(hf("models", "info", repo, "--json", words=2))["sha"] == hub.head(repo)
    assert repo in hf("models", "ls", "--author", "user", "--limit", "1000", "--json", words=2)
    assert "model.safetensors" in hf("models", "ls", repo, "--json", words=2)


def test_copy(hub, hf, filled, tmp_path):
    repo, files = filled
    (tmp_path / "local.txt").write_bytes(b"local")
    hf("cp", tmp_path / "local.txt", f"hf://{repo}/up/local.txt")
    assert hub.content(repo, "up/local.txt") == b"local"
    hf("cp", f"hf://{repo}/model.safetensors", tmp_path / "down.safetensors")
    assert (tmp_path / "down.safetensors").read_bytes() == files["model.safetensors"]
    hf("cp", f"hf://{repo}/model.safetensors", f"hf://{repo}/again.safetensors")
    assert hub.blob(repo, "again.safetensors") == hub.blob(repo, "model.safetensors")


def test_discussions(hub, hf, repo):
    hub.commit(repo, {"p.txt": b"p"}, create_pr=True)
    hf("discussions", "comment", repo, "1", "--body", "Good", words=2)
    assert "p.txt" in hf("discussions", "diff", repo, "1", words=2)
    hf("discussions", "merge", repo, "1", "--yes", words=2)
    assert hub.content(repo, "p.txt") == b"p"
    hf("discussions", "create", repo, "--title", "A question", "--body", "Why?", words=2)
    hf("discussions", "close", repo, "2", "--yes", words=2)
    listed = json.loads(hf("discussions", "list", repo, "--status", "closed", "--json", words=2))
    assert [(item["num"], item["status"]) for item in listed] == [(2, "closed"), (1, "merged")]


if __version__.startswith("1."):

    def test_commands_that_2_dropped(hub, hf, new_id, folder):
        path, files = folder
        hf("repo", "create", new_id, "--type", "dataset", words=2)
        hf("upload-large-folder", new_id, path, "--type", "dataset", "--num-workers", "2")
        assert {name: hub.content(new_id, name, type="dataset") for name in files} == files
