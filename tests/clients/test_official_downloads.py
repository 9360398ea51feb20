"""The unmodified huggingface_hub client: downloads into its cache and into folders, the `hf` command."""

import os
import pathlib

import pytest
from examiner import read_tree
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError


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


@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/1", "feature/x", "refs/convert/parquet", "commit"])
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
