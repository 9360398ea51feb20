"""The unmodified huggingface_hub client: repositories moved, copied, squashed; access; LFS objects."""

import json
import os

import pytest
from examiner import CALLS
from huggingface_hub import __version__, hf_hub_url
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Lists and information


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_info_and_lists_of_each_type(hub, api, new_id, kind):
    hub.create_repo(new_id, kind)
    head = hub.commit(new_id, {"a.txt": b"a"}, type=kind)
    info = getattr(api, kind + "_info")(new_id, revision="main")
    assert (info.id, info.sha, info.author) == (new_id, head, "user")
    assert {item.rfilename for item in info.siblings} >= {".gitattributes", "a.txt"}
    assert api.repo_info(new_id, repo_type=kind).sha == head
    listed = getattr(api, f"list_{kind}s")(author="user", search=new_id.partition("/")[2])
    assert [item.id for item in listed] == [new_id]
    assert getattr(api, kind + "_info")(new_id, expand=["sha", "private"]).sha == head


def test_existence(hub, api, repo, new_id):
    hub.commit(repo, {"a.txt": b"a"})
    assert [api.repo_exists(name) for name in (repo, new_id)] == [True, False]
    assert [api.revision_exists(repo, name) for name in ("main", "nowhere")] == [True, False]
    assert [api.file_exists(repo, name) for name in ("a.txt", "b.txt")] == [True, False]
    assert api.list_repo_files(repo) == hub.paths(repo)


def test_resolve_revision(hub, api, repo, tmp_path):
    hub.tag(repo, "v1")
    for name in ("main", "v1"):
        assert api.resolve_revision(repo, revision=name, cache_dir=tmp_path).resolved == hub.head(repo)
    with pytest.raises(RevisionNotFoundError):
        api.resolve_revision(repo, revision="nowhere", cache_dir=tmp_path)


def test_file_metadata(hub, api, filled):
    repo, files = filled
    for name in ("config.json", "model.safetensors"):
        found = api.get_hf_file_metadata(url=hf_hub_url(repo, name))
        assert (found.commit_hash, found.size) == (hub.head(repo), len(files[name]))
    assert found.location.startswith(hub.data)


def test_list_user_repos(hub, api, repo, new_id):
    hub.commit(repo, {"w.bin": bytes(5000)})
    hub.create_repo(new_id, "dataset", private=True)
    hub.config(page_size=2)
    found = {item.id: item for item in api.list_user_repos()}
    assert (found[repo].type, found[repo].visibility) == ("model", "public")
    assert (found[new_id].type, found[new_id].visibility) == ("dataset", "private")
    assert found[repo].storage >= 5000
    hub.create_repo(new_id.replace("user/", "acme/"))
    assert new_id.replace("user/", "acme/") in [item.id for item in api.list_user_repos("acme")]


def test_full_repo_name(api):
    assert api.get_full_repo_name("thing") == "user/thing"
    assert api.get_full_repo_name("thing", organization="acme") == "acme/thing"


# Move, duplicate, settings, squash


def test_move_repo(hub, api, repo, new_id, tmp_path):
    head = hub.commit(repo, {"a.txt": b"a", "w.bin": bytes(300)})
    target = new_id.replace("user/", "acme/")
    api.move_repo(repo, target)
    assert api.model_info(repo).id == target
    assert hub.content(target, "w.bin") == bytes(300)
    with open(api.hf_hub_download(repo, "w.bin", cache_dir=tmp_path), "rb") as file:
        assert file.read() == bytes(300)
    api.upload_file(
        path_or_fileobj=os.urandom(2000), path_in_repo="more.bin", repo_id=repo, parent_commit=head
    )
    assert [item.path for item in api.get_paths_info(repo, ["more.bin"])] == ["more.bin"]
    with pytest.raises(HfHubHTTPError):
        api.move_repo(target, "other/taken")


def test_duplicate_repo(hub, api, filled, new_id):
    repo, files = filled
    url = api.duplicate_repo(repo, new_id, private=True)
    assert url.repo_id == new_id
    assert api.model_info(new_id).private
    assert {path: hub.content(new_id, path) for path in files} == files
    with pytest.raises(HfHubHTTPError) as error:
        api.duplicate_repo(repo, new_id)
    assert error.value.response.status_code == 409


if __version__.startswith("1."):

    def test_duplicate_space(hub, api, new_id):
        hub.create_repo(new_id, "space")
        hub.commit(new_id, {"index.html": b"<html>"}, type="space")
        assert api.duplicate_space(new_id, new_id + "-copy").repo_id == new_id + "-copy"
        assert hub.content(new_id + "-copy", "index.html", type="space") == b"<html>"


def test_settings(hub, api, repo):
    api.update_repo_settings(repo, private=True)
    assert api.model_info(repo).private
    api.update_repo_settings(repo, visibility="public", gated="auto")
    info = api.model_info(repo)
    assert (info.private, info.gated) == (False, "auto")
    api.update_repo_settings(repo, gated=False)
    assert api.model_info(repo).gated is False


def test_super_squash(hub, api, repo):
    for number in range(3):
        hub.commit(repo, {"a.txt": b"%d" % number, "w.bin": bytes([number]) * 200})
    hub.branch(repo, "side")
    hub.tag(repo, "v1")
    api.super_squash_history(repo, branch="side", commit_message="All in one")
    assert [title for _, title in hub.history(repo, "side")] == ["All in one"]
    assert len(hub.history(repo)) == 4
    assert hub.content(repo, "w.bin", "side") == bytes([2]) * 200
    with pytest.raises(HfHubHTTPError):
        api.super_squash_history(repo, branch="nowhere")
    with pytest.raises(BadRequestError):
        api.super_squash_history(repo, branch="v1")


def test_delete_by_pattern(hub, api, repo):
    hub.commit(repo, {"a.txt": b"a", "b.log": b"b", "d/c.log": b"c", "d/e.txt": b"e"})
    api.delete_files(repo, ["*.log"])
    assert sorted(hub.paths(repo)) == [".gitattributes", "a.txt", "d/e.txt"]


# Copies


def test_copy_files_within_a_repo(hub, api, filled):
    repo, files = filled
    api.copy_files(f"hf://{repo}/model.safetensors", f"hf://{repo}/copy.safetensors")
    api.copy_files(f"hf://{repo}/config.json", f"hf://{repo}/deep/copy.json")
    assert hub.content(repo, "copy.safetensors") == files["model.safetensors"]
    assert hub.content(repo, "deep/copy.json") == files["config.json"]
    api.copy_files(f"hf://{repo}/nested/", f"hf://{repo}/nested2/")
    assert [path for path in hub.paths(repo) if path.startswith("nested2/")] == [
        "nested2/deeper/a b#c?%25.txt",
        "nested2/w.bin",
    ]


def test_copy_of_a_regular_file_to_another_repo(hub, api, filled, new_id):
    repo, files = filled
    hub.create_repo(new_id, "dataset")
    api.copy_files(f"hf://{repo}/config.json", f"hf://datasets/{new_id}/config.json")
    assert hub.content(new_id, "config.json", type="dataset") == files["config.json"]


def test_copy_of_lfs_files_to_another_repo(hub, api, filled, new_id):
    """No bytes move; the client does it for files in Xet storage only."""
    repo, files = filled
    hub.create_repo(new_id, "dataset")
    with pytest.raises(ValueError, match="file has no xet hash"):
        api.copy_files(f"hf://{repo}/model.safetensors", f"hf://datasets/{new_id}/copied/w.safetensors")
    hub.config(xet_hash="listed")
    since = hub.last_seq()
    api.copy_files(f"hf://{repo}/model.safetensors", f"hf://datasets/{new_id}/copied/w.safetensors")
    assert hub.content(new_id, "copied/w.safetensors", type="dataset") == files["model.safetensors"]
    assert hub.requests(since, origin="data") == []


# LFS objects


def test_lfs_files_are_listed_and_deleted(hub, api, repo):
    for number in range(3):
        hub.commit(repo, {f"w{number}.bin": bytes([number]) * 500})
    hub.config(page_size=2)
    found = {item.filename: item for item in api.list_lfs_files(repo)}
    assert {name: item.size for name, item in found.items()} == {f"w{n}.bin": 500 for n in range(3)}
    assert found["w0.bin"].ref in ("main", "refs/heads/main", None)
    api.permanently_delete_lfs_files(repo, [found["w1.bin"]])
    assert {item.filename for item in api.list_lfs_files(repo)} == {"w0.bin", "w2.bin"}
    assert "w1.bin" not in hub.paths(repo)
    assert hub.content(repo, "w2.bin") == bytes([2]) * 500


# Checksums and the heads of weights


def test_checksums_of_a_download(hub, api, filled, tmp_path):
    repo, files = filled
    api.snapshot_download(repo, local_dir=tmp_path)
    assert api.verify_repo_checksums(repo, local_dir=tmp_path).checked_count == len(files) + 1
    (tmp_path / "model.safetensors").write_bytes(b"changed")
    (tmp_path / "config.json").unlink()
    found = api.verify_repo_checksums(repo, local_dir=tmp_path)
    assert [item["path"] for item in found.mismatches] == ["model.safetensors"]
    assert found.missing_paths == ["config.json"]


def safetensors(**shapes):
    """A file of zeros in the safetensors format."""
    head, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


def test_safetensors_metadata(hub, api, repo):
    hub.commit(repo, {"model.safetensors": safetensors(a=[2, 3], b=[4, 5])})
    found = api.get_safetensors_metadata(repo)
    assert (found.sharded, found.parameter_count) == (False, {"F32": 26})
    assert api.parse_safetensors_file_metadata(repo, "model.safetensors").tensors["b"].shape == [4, 5]


def test_sharded_safetensors_metadata(hub, api, repo):
    index = {"metadata": {"total_size": 104}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    hub.commit(
        repo,
        {
            "m-1.safetensors": safetensors(a=[2, 3]),
            "m-2.safetensors": safetensors(b=[4, 5]),
            "model.safetensors.index.json": json.dumps(index).encode(),
        },
    )
    found = [api.get_safetensors_metadata(repo)]
    if not __version__.startswith("1."):
        found.append(api.get_sharded_safetensors_metadata(repo))
    for item in found:
        assert (item.sharded, item.parameter_count, item.weight_map) == (
            True,
            {"F32": 26},
            index["weight_map"],
        )


# Access


def test_access_requests(hub, api, connect, repo):
    hub.commit(repo, {"s.txt": b"s"})
    api.update_repo_settings(repo, gated="manual")
    reader = connect("reader")
    assert hub.request("POST", f"/{repo}/ask-access", {}, token="reader").status in (200, 201, 302, 303)
    assert [item.username for item in api.list_pending_access_requests(repo)] == ["reader"]
    with pytest.raises(GatedRepoError):
        reader.auth_check(repo)
    api.accept_access_request(repo, "reader")
    assert [item.username for item in api.list_accepted_access_requests(repo)] == ["reader"]
    reader.auth_check(repo)
    api.cancel_access_request(repo, "reader")
    api.reject_access_request(repo, "reader", rejection_reason=None)
    assert [item.username for item in api.list_rejected_access_requests(repo)] == ["reader"]
    with pytest.raises(GatedRepoError):
        reader.auth_check(repo)
    api.grant_access(repo, "other")
    connect("other").auth_check(repo)


def test_only_members_manage(hub, connect, repo):
    stranger = connect("other")
    for refused in (
        lambda: stranger.delete_repo(repo),
        lambda: stranger.update_repo_settings(repo, private=True),
        lambda: stranger.super_squash_history(repo),
        lambda: stranger.create_branch(repo, branch="x"),
        lambda: stranger.create_tag(repo, tag="x"),
        lambda: stranger.move_repo(repo, "other/mine"),
        lambda: list(stranger.list_lfs_files(repo)),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refused()
        assert error.value.response.status_code == 403
    hub.set_repo(repo, private=True)
    with pytest.raises(RepositoryNotFoundError):
        stranger.create_branch(repo, branch="x")


def test_run_as_future(hub, api, repo):
    first = api.run_as_future(api.upload_file, path_or_fileobj=b"1", path_in_repo="1", repo_id=repo)
    second = api.upload_file(path_or_fileobj=b"2", path_in_repo="2", repo_id=repo, run_as_future=True)
    third = api.create_commit(repo, [], commit_message="nothing", run_as_future=True)
    CALLS["HfApi.create_commit(run_as_future)"] += 1
    made = [second.result().oid, first.result().oid]
    assert made == [oid for oid, _ in hub.history(repo)[:2]]
    assert third.result().oid == hub.head(repo)
