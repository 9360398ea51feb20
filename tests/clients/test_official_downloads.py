"""The unmodified huggingface_hub client: downloads into its cache and into folders, the `hf` command."""

import os
import pathlib

import pytest
from examiner import read_tree
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


@pytest.mark.parametrize("private", [False, True])
def test_hf_hub_download(hub, api, filled, private, tmp_path):
    repo, files = filled
    hub.set_repo(repo, private=private)
    for name, content in files.items():
        path = api.hf_hub_download(repo, name, cache_dir=tmp_path)
        assert pathlib.Path(path).read_bytes() == content
        assert hub.head(repo) in path


def test_hf_hub_download_of_what_is_missing(api, filled, tmp_path):
    repo, _ = filled
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "missing.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "config.json", revision="nowhere", cache_dir=tmp_path)
    with pytest.raises((EntryNotFoundError, LocalEntryNotFoundError)):
        api.hf_hub_download(repo, "nested", cache_dir=tmp_path)


@pytest.mark.parametrize(
    "revision", ["main", "v1", "refs/pr/1", "feature/x", "refs/convert/parquet", "commit"]
)
def test_snapshot_download(hub, api, filled, revision, tmp_path):
    repo, files = filled
    hub.tag(repo, "v1", message="annotated")
    hub.branch(repo, "feature/x")
    hub.set_ref(repo, "refs/convert/parquet", "main")
    hub.call("POST", f"{hub.api(repo)}/discussions", {"title": "pull request", "pullRequest": True})
    revision = hub.head(repo) if revision == "commit" else revision
    folder = api.snapshot_download(repo, revision=revision, cache_dir=tmp_path)
    assert read_tree(folder) == files
    since = hub.last_seq()
    assert api.snapshot_download(repo, revision=revision, cache_dir=tmp_path) == folder
    assert all("/revision/" in item["path"] for item in hub.requests(since))


def test_download_resumes_after_a_cut(hub, api, filled, tmp_path):
    repo, files = filled
    since = hub.last_seq()
    hub.fault(origin="data", method="GET", cut_after=100_000)
    path = api.hf_hub_download(repo, "model.safetensors", cache_dir=tmp_path)
    assert pathlib.Path(path).read_bytes() == files["model.safetensors"]
    assert len(hub.requests(since, origin="data", method="GET")) == 2


def test_what_is_cached_is_asked_for_by_head_only(hub, api, filled, tmp_path):
    """A known commit is asked for by nothing at all; a new commit with the old content downloads nothing."""
    repo, files = filled
    for name in ("config.json", "model.safetensors"):
        api.hf_hub_download(repo, name, cache_dir=tmp_path)
        since = hub.last_seq()
        path = api.hf_hub_download(repo, name, cache_dir=tmp_path)
        assert {item["method"] for item in hub.requests(since)} == {"HEAD"}
        since = hub.last_seq()
        assert api.hf_hub_download(repo, name, revision=hub.head(repo), cache_dir=tmp_path) == path
        assert [item for item in hub.requests(since) if item["agent"]] == []
        hub.commit(repo, {f"other-{name}": b"x"})
        since = hub.last_seq()
        moved = api.hf_hub_download(repo, name, cache_dir=tmp_path)
        assert moved != path and pathlib.Path(moved).read_bytes() == files[name]
        assert {item["method"] for item in hub.requests(since) if item["agent"]} == {"HEAD"}


def test_changed_file_is_downloaded_again(hub, api, filled, tmp_path):
    repo, _ = filled
    api.snapshot_download(repo, cache_dir=tmp_path)
    weights = os.urandom(4000)
    hub.commit(repo, {"model.safetensors": weights, "config.json": None})
    since = hub.last_seq()
    folder = pathlib.Path(api.snapshot_download(repo, cache_dir=tmp_path))
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not (folder / "config.json").exists()
    assert len(hub.requests(since, origin="data", method="GET")) == 1


def test_local_dir_and_patterns(hub, api, filled, tmp_path):
    repo, files = filled
    api.snapshot_download(
        repo, local_dir=tmp_path, allow_patterns=["nested/*", "*.json"], ignore_patterns="*.bin"
    )
    found = {
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
    assert found == {"config.json", "nested/deeper/a b#c?%25.txt"}
    since = hub.last_seq()
    api.snapshot_download(repo, local_dir=tmp_path, allow_patterns="*.json")
    assert hub.requests(since, origin="data") == []


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_downloads_of_each_type_follow_a_new_name(hub, api, new_id, kind, tmp_path):
    hub.create_repo(new_id, kind, private=True)
    hub.commit(new_id, {"a.txt": b"a", "w.bin": bytes(200)}, type=kind)
    api.move_repo(new_id, new_id + "-moved", repo_type=kind)
    folder = api.snapshot_download(new_id, repo_type=kind, cache_dir=tmp_path)
    assert read_tree(folder) == {"a.txt": b"a", "w.bin": bytes(200)}
    with pytest.raises(RepositoryNotFoundError):
        api.snapshot_download(new_id, repo_type=kind, cache_dir=tmp_path / "2", token=hub.tokens["other"])


def test_offline_hub_leaves_the_cache_usable(hub, api, filled, tmp_path):
    repo, files = filled
    folder = api.snapshot_download(repo, cache_dir=tmp_path)
    hub.fault(status=503, times=-1)
    assert api.snapshot_download(repo, cache_dir=tmp_path) == folder
    assert api.hf_hub_download(repo, "config.json", cache_dir=tmp_path).startswith(folder)
    hub.clear_faults()
