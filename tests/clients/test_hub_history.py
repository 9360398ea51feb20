"""Branches, tags, squashing, LFS objects deleted for ever, and what is left of history after them."""

import hashlib
import json
import time

import pytest
from client import HubError, quote
from huggingface_hub.errors import HfHubHTTPError

WEIGHTS = bytes(range(256)) * 5


def code(answer):
    return answer.status, answer.headers["X-Error-Code"]


def clean(hub, repo):
    """git finds no fault with what refs lead to; what they no longer lead to may lie around."""
    return hub.git(repo, "fsck", "--strict", "--no-dangling") == b""


# Branches and tags


def branch(hub, repo, name, body=None, method="POST", token="user"):
    return hub.request(
        method, f"{hub.api(repo)}/branch/{quote(name)}", body if method == "POST" else None, token=token
    )


def test_branches_start_anywhere(hub, repo):
    first = hub.head(repo)
    head = hub.commit(repo, {"a": b"a"})
    hub.tag(repo, "v1", rev=first)
    pull = hub.commit(repo, {"p": b"p"}, create_pr=True)["commitOid"]
    starts = {"main": head, head: head, first: first, "v1": first, "refs/pr/1": pull}
    for number, (start, wanted) in enumerate(starts.items()):
        assert branch(hub, repo, f"b/{number}", {"startingPoint": start}).status == 200
        assert hub.head(repo, f"b/{number}") == wanted
    assert branch(hub, repo, "b/0", {"startingPoint": first}).status == 409
    assert branch(hub, repo, "b/0", {"startingPoint": first, "overwrite": True}).status == 200
    assert hub.head(repo, "b/0") == first
    assert branch(hub, repo, "empty", {"emptyBranch": True}).status == 200
    assert hub.paths(repo, "empty") == [] and len(hub.history(repo, "empty")) == 1
    assert clean(hub, repo)


def test_branches_refused(hub, repo):
    answer = branch(hub, repo, "main", {})
    assert (answer.status, answer.json()["error"]) == (409, "Reference refs/heads/main already exists")
    for name in ("refs/heads/x", "refs/pr/1", "HEAD", "a..b", "a b", "x.lock", "-x~1"):
        answer = branch(hub, repo, name, {})
        assert answer.status == 400 and "Invalid reference for a branch" in answer.json()["error"], name
    assert code(branch(hub, repo, "x", {"startingPoint": "nowhere"})) == (404, "RevisionNotFound")
    assert code(branch(hub, repo, "x", {"startingPoint": "0" * 40})) == (404, "RevisionNotFound")
    answer = branch(hub, repo, "main", method="DELETE")
    assert answer.status == 403 and answer.json()["error"] == "Cannot delete refs/heads/main"
    assert code(branch(hub, repo, "nowhere", method="DELETE")) == (404, "RevisionNotFound")
    for method in ("POST", "DELETE"):
        assert branch(hub, repo, "x", {}, method, token="other").status == 403
        assert branch(hub, repo, "x", {}, method, token=None).status == 401
    hub.branch(repo, "dir")
    assert branch(hub, repo, "dir/below", {}).status == 400
    assert hub.git(repo, "for-each-ref", "--format=%(refname)").decode().split() == [
        "refs/heads/dir",
        "refs/heads/main",
    ]


def test_a_new_branch_takes_a_moment(hub, repo):
    hub.config(new_ref_delay_ms=3_600_000)
    hub.branch(repo, "late")
    hub.tag(repo, "never")
    target = f"{hub.api(repo)}/revision/late"
    assert code(hub.request("GET", target)) == (404, "RevisionNotFound")
    refs = hub.call("GET", f"{hub.api(repo)}/refs")
    assert ([item["name"] for item in refs["branches"]], refs["tags"]) == (["main"], [])
    assert branch(hub, repo, "late", {}).status == 409
    hub.config(new_ref_delay_ms=50)
    hub.branch(repo, "soon")
    end = time.monotonic() + 30
    while hub.request("GET", f"{hub.api(repo)}/revision/soon").status == 404:
        assert time.monotonic() < end
    assert hub.head(repo, "soon") == hub.head(repo)


def test_tags(hub, api, repo):
    first = hub.head(repo)
    head = hub.commit(repo, {"a": b"a"})
    target = f"{hub.api(repo)}/tag/"
    assert hub.request("POST", target + first[:7], {"tag": "short"}).status == 200
    api.create_tag(repo, tag="v/1", revision="main")
    api.create_tag(repo, tag="v/1", exist_ok=True)
    found = {item["name"]: item["targetCommit"] for item in hub.call("GET", f"{hub.api(repo)}/refs")["tags"]}
    assert found == {"short": first, "v/1": head}
    assert hub.request("POST", target + "main", {"tag": "v/1"}).status == 409
    assert code(hub.request("POST", target + "nowhere", {"tag": "x"})) == (404, "RevisionNotFound")
    assert code(hub.request("POST", target + first[:6], {"tag": "x"})) == (404, "RevisionNotFound")
    for name in ("", "a b", "x..y"):
        assert hub.request("POST", target + "main", {"tag": name}).status == 400
    assert hub.request("POST", target + "main", {"tag": "x"}, token="other").status == 403
    assert hub.request("DELETE", target + quote("v/1")).status == 200
    assert code(hub.request("DELETE", target + quote("v/1"))) == (404, "RevisionNotFound")
    assert code(hub.request("DELETE", target + "main")) == (404, "RevisionNotFound")


# Commits and sizes


def test_commits_page_by_page(hub, repo):
    for number in range(6):
        hub.commit(repo, {"n": b"%d" % number}, summary=f"<{number}>", description="a & b")
    oids = [oid for oid, _ in hub.history(repo)]
    answer = hub.request("GET", f"{hub.api(repo)}/commits/main?limit=4&expand[]=formatted")
    assert [item["id"] for item in answer.json()] == oids[:4]
    assert answer.headers["X-Total-Count"] == "7" and 'rel="next"' in answer.headers["Link"]
    assert answer.json()[0]["formatted"] == {"title": "&lt;5&gt;", "message": "a &amp; b"}
    assert "formatted" not in hub.call("GET", f"{hub.api(repo)}/commits/main?limit=1")[0]
    rest = hub.request("GET", f"{hub.api(repo)}/commits/main?limit=4&p=1")
    assert [item["id"] for item in rest.json()] == oids[4:] and rest.headers["Link"] is None
    assert hub.call("GET", f"{hub.api(repo)}/commits/main?p=9") == []
    assert [item["id"] for item in hub.call("GET", f"{hub.api(repo)}/commits/{oids[3]}")] == oids[3:]
    assert code(hub.request("GET", f"{hub.api(repo)}/commits/nowhere")) == (404, "RevisionNotFound")


def test_treesize_counts_lfs_by_content(hub, repo):
    hub.commit(repo, {"d/w.bin": WEIGHTS, "d/e/t.txt": b"123", "x": b"1"})
    size = len(hub.content(repo, ".gitattributes"))
    for path, wanted in (
        ("", size + len(WEIGHTS) + 4),
        ("/", size + len(WEIGHTS) + 4),
        ("/d", len(WEIGHTS) + 3),
        ("/d/e", 3),
    ):
        assert hub.call("GET", f"{hub.api(repo)}/treesize/main{path}")["size"] == wanted
    assert code(hub.request("GET", f"{hub.api(repo)}/treesize/main/nothing")) == (404, "EntryNotFound")
    assert code(hub.request("GET", f"{hub.api(repo)}/treesize/nowhere/d")) == (404, "RevisionNotFound")


# Super-squash


def test_super_squash(hub, api, repo):
    old = hub.commit(repo, {"a": b"a", "w.bin": WEIGHTS})
    hub.commit(repo, {"b": b"b"})
    tree = hub.git(repo, "rev-parse", "main^{tree}")
    api.super_squash_history(repo, branch="main", commit_message="All in one\n\nand why")
    assert [title for _, title in hub.history(repo)] == ["All in one"]
    assert hub.git(repo, "rev-parse", "main^{tree}") == tree and hub.content(repo, "w.bin") == WEIGHTS
    assert clean(hub, repo)
    assert hub.request("GET", f"/{repo}/resolve/{old}/a").status == 307
    hub.prune(repo)
    for target in (
        f"/{repo}/resolve/{old}/a",
        f"{hub.api(repo)}/revision/{old}",
        f"{hub.api(repo)}/tree/{old}",
    ):
        assert code(hub.request("GET", target)) == (404, "RevisionNotFound")
    assert hub.content(repo, "b") == b"b" and hub.git(repo, "fsck", "--strict") == b""
    assert [item["path"] for item in hub.call("GET", f"{hub.api(repo)}/tree/main")] == hub.paths(repo)


def test_super_squash_of_other_refs(hub, repo):
    hub.branch(repo, "a/b")
    hub.commit(repo, {"x": b"x"}, branch="a/b")
    hub.commit(repo, {"p": b"p"}, create_pr=True)
    hub.tag(repo, "v1")
    squash = hub.api(repo) + "/super-squash/"
    for revision in ("a/b", "refs/pr/1"):
        made = hub.call("POST", squash + quote(revision), {"message": "m"})
        assert made == {"commitId": hub.head(repo, revision)} and len(hub.history(repo, revision)) == 1
    assert hub.request("POST", squash + "v1", {}).status == 400
    assert hub.request("POST", squash + hub.head(repo), {}).status == 400
    assert code(hub.request("POST", squash + "nowhere", {})) == (404, "RevisionNotFound")
    assert hub.request("POST", squash + "main", {"message": "x" * 501}).status == 400
    assert hub.request("POST", squash + "main", {"message": "x" * 500}).status == 200
    assert hub.request("POST", squash + "main", {}, token="other").status == 403


def test_info_may_give_a_head_that_is_gone(hub, repo):
    """One user saw this for a time after a forced push: /revision is stale, /refs is right."""
    old = hub.head(repo)
    hub.commit(repo, {"a": b"a"})
    new = hub.call("POST", f"{hub.api(repo)}/super-squash/main", {})["commitId"]
    hub.set_repo(repo, stale_head=old)
    assert hub.head(repo) == hub.call("GET", f"{hub.api(repo)}?expand=sha")["sha"] == old
    assert hub.call("GET", f"{hub.api(repo)}/refs")["branches"][0]["targetCommit"] == new
    hub.set_repo(repo, stale_head=None)
    assert hub.head(repo) == new


# LFS objects


def test_lfs_files_are_listed(hub, api, repo):
    first = hub.commit(repo, {"a/w.bin": WEIGHTS, "t.txt": b"t"})
    hub.commit(repo, {"a/w.bin": None, "v.bin": b"\0" * 10, "copy.bin": WEIGHTS})
    hub.commit(repo, {"p.bin": b"\1" * 10}, create_pr=True)
    hub.config(page_size=2)
    found = {item.filename: item for item in api.list_lfs_files(repo)}
    assert set(found) == {"a/w.bin", "v.bin", "p.bin"}
    item = found["a/w.bin"]
    assert (item.oid, item.size, item.ref) == (
        hashlib.sha256(WEIGHTS).hexdigest(),
        len(WEIGHTS),
        "refs/heads/main",
    )
    assert found["p.bin"].ref == "refs/pr/1"
    assert item.pushed_at.timestamp() == int(hub.git(repo, "log", "-1", "--format=%ct", first))
    assert hub.call("GET", f"{hub.api(repo)}/lfs-files?xet=true") == []
    assert hub.request("GET", f"{hub.api(repo)}/lfs-files", token="other").status == 403


def test_lfs_files_deleted_for_ever(hub, api, repo):
    """The object goes, every ref forgets the pointer, and all else stays as it was."""
    hub.commit(
        repo, {"keep.bin": b"\0keep", "d/w.bin": WEIGHTS, "t.txt": b"1"}, summary="one", description="why"
    )
    hub.branch(repo, "dev")
    hub.tag(repo, "v1", message="annotated")
    hub.commit(repo, {"d/w.bin": None, "t.txt": b"2"}, summary="two")
    hub.commit(repo, {"copy.bin": WEIGHTS}, create_pr=True)
    before = hub.git(repo, "log", "--format=%an %at %B", "main")
    api.permanently_delete_lfs_files(
        repo, [item for item in api.list_lfs_files(repo) if item.filename == "d/w.bin"]
    )
    for rev, files in (
        ("main", ["keep.bin", "t.txt"]),
        ("dev", ["keep.bin", "t.txt"]),
        ("v1", ["keep.bin", "t.txt"]),
        ("refs/pr/1", ["keep.bin", "t.txt"]),
    ):
        assert hub.paths(repo, rev) == [".gitattributes", *files]
    assert hub.git(repo, "log", "--format=%an %at %B", "main") == before
    assert hub.git(repo, "cat-file", "-t", "refs/tags/v1") == b"tag\n" and clean(hub, repo)
    assert [item.filename for item in api.list_lfs_files(repo)] == ["keep.bin"]
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    lines = [
        {"key": "header", "value": {"summary": "again"}},
        {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid, "size": len(WEIGHTS)}},
    ]
    with pytest.raises(HubError, match="400"):
        hub.commit_lines(repo, lines)


def test_lfs_object_deleted_but_not_forgotten(hub, repo):
    head = hub.commit(repo, {"w.bin": WEIGHTS})
    location = hub.request("GET", f"/{repo}/resolve/main/w.bin").headers["Location"]
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    target = f"{hub.api(repo)}/lfs-files/{oid}"
    assert hub.request("DELETE", target + "?rewriteHistory=false").status == 200
    assert hub.head(repo) == head and hub.paths(repo) == [".gitattributes", "w.bin"]
    assert hub.request("GET", location, token=None).status == 404
    assert hub.request("DELETE", target).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"deletions": {}},
        {"deletions": {"sha": []}},
        {"deletions": {"sha": ["x"] * 1001}},
        {"deletions": {"sha": ["x"], "rewriteHistory": "no"}},
    ],
)
def test_wrong_deletions_are_refused(hub, repo, body):
    assert hub.request("POST", f"{hub.api(repo)}/lfs-files/batch", body).status == 400


# safetensors


def tensors(name):
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def test_headers_of_a_sharded_model(hub, api, repo):
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    hub.commit(
        repo,
        {
            "model.safetensors.index.json": json.dumps(index).encode(),
            "x-1.safetensors": tensors("a"),
            "x-2.safetensors": tensors("b"),
            "broken.index.json": b"{}",
        },
    )
    target = f"{hub.api(repo)}/safetensors-metadata/"
    found = hub.call("GET", target + "model.safetensors.index.json")
    assert found["index"] == {"metadata": {"total_size": 8}} and set(found["headers"]) == set(
        index["weight_map"].values()
    )
    assert found["headers"]["x-2.safetensors"]["b"]["shape"] == [1]
    assert api.get_sharded_safetensors_metadata(repo).weight_map == index["weight_map"]
    assert code(hub.request("GET", target + "missing.json")) == (404, "EntryNotFound")
    assert hub.request("GET", target + "broken.index.json").status == 400
    hub.commit(repo, {"x-2.safetensors": b"\xff" * 20})
    assert hub.request("GET", target + "model.safetensors.index.json").status == 400
    with pytest.raises(HfHubHTTPError):
        api.get_sharded_safetensors_metadata(repo)
