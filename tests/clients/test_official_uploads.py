"""The unmodified huggingface_hub client: many files, patterns, a Hub that fails, every switch."""

import os
import pathlib

import pytest
import switches
from examiner import Counted, read_tree
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfFileSystem, __version__
from huggingface_hub.errors import HfHubHTTPError


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_many_files_are_one_commit(hub, api, repo, tmp_path):
    files = {f"d{n % 7}/f{n}.txt": b"%d" % n for n in range(600)}
    files |= {f"w{n}.bin": os.urandom(900) for n in range(300)}
    write(tmp_path, files)
    since = hub.last_seq()
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    some = list(files)[::50]
    assert [hub.content(repo, name) for name in some] == [files[name] for name in some]
    assert sorted(hub.paths(repo)) == sorted([*files, ".gitattributes"])
    seen = [item["path"] for item in hub.requests(since, method="POST")]
    steps = ("/preupload/", "/objects/batch", "/commit/")
    assert [sum(step in path for path in seen) for step in steps] == [4, 2, 1]


def test_second_upload_of_a_folder_does_nothing(hub, api, repo, tmp_path):
    write(tmp_path, {"a.txt": b"a", "w.bin": os.urandom(2000)})
    first = api.upload_folder(repo_id=repo, folder_path=tmp_path)
    since = hub.last_seq()
    assert api.upload_folder(repo_id=repo, folder_path=tmp_path).oid == first.oid
    steps = [item["path"].split("/")[-2] for item in hub.requests(since)]
    assert steps == ["preupload", "objects", "revision"]
    (tmp_path / "a.txt").write_bytes(b"b")
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert len(hub.history(repo)) == 3


def test_patterns(hub, api, repo, tmp_path):
    write(
        tmp_path,
        {
            "a.txt": b"a",
            "b.log": b"b",
            "d/c.txt": b"c",
            "d/e.log": b"e",
            ".git/config": b"no",
            ".cache/huggingface/x": b"no",
        },
    )
    hub.commit(repo, {"up/old.txt": b"old", "up/d/old.log": b"old", "other.txt": b"kept"})
    api.upload_folder(
        repo_id=repo,
        folder_path=tmp_path,
        path_in_repo="up",
        allow_patterns=["*.txt"],
        ignore_patterns="d/*",
        delete_patterns=["*.log", "old.*"],
    )
    assert sorted(hub.paths(repo)) == [".gitattributes", "other.txt", "up/a.txt"]


def test_ignore_file_of_the_repo(hub, api, repo, tmp_path):
    hub.commit(repo, {".gitignore": b"*.log\n/build/\n!keep.log\n"})
    write(tmp_path, {"x.log": b"x", "keep.log": b"k", "build/y.txt": b"y", "sub/build/z.txt": b"z"})
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert sorted(hub.paths(repo)) == [".gitattributes", ".gitignore", "keep.log", "sub/build/z.txt"]


def test_file_that_one_commit_deletes_and_adds_unchanged(hub, api, repo):
    """1.x leaves the addition out because nothing changes, and the file is gone; 2.x keeps it."""
    hub.commit(repo, {"d/a.txt": b"a", "d/b.txt": b"b"})
    api.create_commit(
        repo,
        [
            CommitOperationDelete("d/"),
            CommitOperationAdd("d/a.txt", b"a"),
            CommitOperationAdd("new.txt", b"n"),
        ],
        commit_message="swap",
    )
    kept = [] if __version__.startswith("1.") else ["d/a.txt"]
    assert sorted(hub.paths(repo)) == [".gitattributes", *kept, "new.txt"]


@pytest.mark.parametrize(
    "step", ["/preupload/", "/objects/batch", "PUT", "/api/complete_multipart", "/objects/verify"]
)
def test_step_of_an_upload_that_fails_is_repeated(hub, api, repo, step):
    """With a part of a multipart upload among the PUTs."""
    content = os.urandom(6_300_000)
    if step == "PUT":
        fault = hub.fault(method="PUT", status=503, times=2)
    else:
        fault = hub.fault(step, status=503)
    api.create_commit(
        repo,
        [CommitOperationAdd("big.bin", content), CommitOperationAdd("small.bin", b"\0" * 50)],
        commit_message="in spite of it",
    )
    assert (hub.faults()[0]["id"], hub.faults()[0]["hits"]) == (fault, 2 if step == "PUT" else 1)
    assert hub.content(repo, "big.bin") == content
    assert len(hub.history(repo)) == 2


@pytest.mark.parametrize("status", [409, 412, 500, 504])
def test_failed_commit_is_not_repeated(hub, api, repo, status):
    since = hub.last_seq()
    hub.fault("/commit/", status=status)
    with pytest.raises(HfHubHTTPError) as error:
        api.upload_file(path_or_fileobj=b"a", path_in_repo="a", repo_id=repo)
    assert error.value.response.status_code == status
    assert sum("/commit/" in item["path"] for item in hub.requests(since)) == 1


def test_rate_limit_is_waited_for(hub, api, repo):
    """A 429 with the quota's own waiting time, which the client sleeps through."""
    hub.fault("/preupload/", status=429, headers={"RateLimit": '"api";r=0;t=0'})
    api.upload_file(path_or_fileobj=b"a", path_in_repo="a", repo_id=repo)
    assert hub.content(repo, "a") == b"a"


@pytest.mark.parametrize(
    "settings",
    [
        {"gzip": "chunked"},
        {"gzip": "length"},
        {"signature_style": "cloudfront"},
        {"page_size": 2},
        {"xet_hash": "listed"},
        *({name: value} for name, switch in switches.SWITCHES.items() for value in switch.others),
    ],
    ids=lambda settings: "=".join(map(str, *settings.items())),
)
def test_days_work_whatever_the_hub_is_like(hub, api, new_id, settings, tmp_path):
    """Create, upload, branch, tag, propose, merge, rename, download, read: the same under every setting."""
    hub.config(**settings)
    files = {"config.json": b"{}\n" * 20, "w.bin": os.urandom(3000), "d/t.txt": b"text\n" * 20}
    write(tmp_path / "up", files)
    api.create_repo(new_id, private=True)
    api.upload_folder(repo_id=new_id, folder_path=tmp_path / "up")
    api.create_branch(new_id, branch="dev")
    api.create_tag(new_id, tag="v1", tag_message="first")
    files["d/p.txt"] = b"proposed"
    made = api.create_commit(
        new_id, [CommitOperationAdd("d/p.txt", b"proposed")], commit_message="p", create_pr=True
    )
    api.change_discussion_status(new_id, made.pr_num, "open")
    api.merge_pull_request(new_id, made.pr_num)
    api.move_repo(new_id, new_id + "-moved")
    assert read_tree(api.snapshot_download(new_id, cache_dir=tmp_path / "cache")) == files
    assert not api.file_exists(new_id, "d/p.txt", revision="v1")
    with open(
        api.hf_hub_download(new_id + "-moved", "w.bin", revision="dev", cache_dir=tmp_path / "cache"), "rb"
    ) as file:
        assert file.read() == files["w.bin"]
    found = Counted(HfFileSystem(skip_instance_cache=True), "HfFileSystem")
    assert {name: found.cat_file(f"{new_id}-moved/{name}") for name in files} == files
    assert sorted(pathlib.PurePath(name).name for name in found.find(new_id + "-moved")) == sorted(
        pathlib.PurePath(name).name for name in [*files, ".gitattributes"]
    )
