"""@huggingface/hub from npm, unmodified, run by examiner.mjs: repositories, branches, commits, downloads."""

import base64
import json
import os
import pathlib
import subprocess
import sys

import pytest
from examiner import CALLS, VERSIONS, read_tree

HERE = pathlib.Path(__file__).resolve().parent
MODULES = HERE.parents[2] / "build" / "node"


class NodeError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Node:
    """The node process. Its attributes are functions of @huggingface/hub with named parameters."""

    def __init__(self, endpoint, home):
        command = [pathlib.Path(sys.executable).with_name("node"), HERE / "examiner.mjs"]
        self._defaults = {"hubUrl": endpoint}
        self._process = subprocess.Popen(
            command,
            cwd=MODULES,
            env={**os.environ, "HF_HOME": str(home)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name, version in json.loads(self._process.stdout.readline()).items():
            VERSIONS.add(f"{name}/{version}")

    def stop(self):
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0

    def __getattr__(self, name):
        def call(token=None, **params):
            CALLS["@huggingface/hub " + name] += 1
            params = {**self._defaults, **params, **({"accessToken": token} if token else {})}
            self._process.stdin.write(json.dumps({"function": name, "params": params}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            if "error" in answer:
                raise NodeError(answer["error"]["status"], answer["error"]["message"])
            return answer["result"]

        return call


@pytest.fixture(scope="module")
def node_process(tmp_path_factory):
    node = Node(os.environ["HF_ENDPOINT"], tmp_path_factory.mktemp("node-home"))
    yield node
    node.stop()


@pytest.fixture
def node(node_process, hub):
    """Functions of @huggingface/hub with the token of `user`."""

    class User:
        def __getattr__(self, name):
            return lambda **params: getattr(node_process, name)(**{"token": hub.tokens["user"], **params})

    return User()


def blob(content):
    return {"base64": base64.b64encode(content).decode()}


def content(found):
    return base64.b64decode(found["base64"])


def test_who_am_i(node):
    me = node.whoAmI()
    assert (me["name"], me["type"], me["orgs"][0]["name"], me["auth"]["type"]) == (
        "user",
        "user",
        "acme",
        "access_token",
    )
    with pytest.raises(NodeError) as error:
        node.whoAmI(token="hf_" + "x" * 34)
    assert error.value.status == 401


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_repositories(hub, node, new_id, kind):
    repo = {"type": kind, "name": new_id}
    made = node.createRepo(
        repo=repo,
        visibility="private",
        license="mit",
        **({"sdk": "static"} if kind == "space" else {}),
        files=[{"path": "first.txt", "content": blob(b"first")}],
    )
    assert made["repoUrl"].endswith(("" if kind == "model" else kind + "s/") + new_id)
    assert node.repoExists(repo=repo)
    node.checkRepoAccess(repo=repo)
    with pytest.raises(NodeError) as error:
        node.checkRepoAccess(repo=repo, token=hub.tokens["other"])
    assert error.value.status == 404
    info = getattr(node, kind + "Info")(name=new_id)
    assert (info["name"], info["private"]) == (new_id, True)
    listed = getattr(node, f"list{kind.capitalize()}s")(search={"owner": "user"})
    assert new_id in [item["name"] for item in listed]
    node.deleteRepo(repo=repo)
    assert not node.repoExists(repo=repo)


def test_branches(hub, node, repo):
    first = hub.head(repo)
    head = hub.commit(repo, {"a.txt": b"a"})
    node.createBranch(repo=repo, branch="feature/x")
    node.createBranch(repo=repo, branch="old", revision=first)
    node.createBranch(repo=repo, branch="empty", empty=True)
    assert (hub.head(repo, "feature/x"), hub.head(repo, "old")) == (head, first)
    assert "a.txt" not in hub.paths(repo, "empty")
    with pytest.raises(NodeError) as error:
        node.createBranch(repo=repo, branch="old")
    assert error.value.status == 409
    node.createBranch(repo=repo, branch="old", overwrite=True)
    assert hub.head(repo, "old") == head
    node.deleteBranch(repo=repo, branch="feature/x")
    assert {ref["name"] for ref in hub.call("GET", hub.api(repo) + "/refs")["branches"]} == {
        "main",
        "old",
        "empty",
    }


@pytest.mark.parametrize("xet", [True, False])
def test_commit(hub, node, repo, xet):
    """With Xet on its list of transfers, its default, it takes the plain upload that the Hub chooses."""
    weights = os.urandom(100_000)
    hub.commit(repo, {"gone.txt": b"x"})
    head = hub.head(repo)
    made = node.commit(
        repo=repo,
        title="By node",
        description="why",
        parentCommit=head,
        useXet=xet,
        operations=[
            {"operation": "addOrUpdate", "path": "dir/ü#%.txt", "content": blob("ü".encode())},
            {"operation": "addOrUpdate", "path": "w.safetensors", "content": blob(weights)},
            {"operation": "addOrUpdate", "path": "empty.txt", "content": blob(b"")},
            {"operation": "delete", "path": "gone.txt"},
        ],
    )
    assert hub.history(repo)[0] == (made["commit"]["oid"], "By node")
    assert made["commit"]["url"].startswith(hub.endpoint)
    assert sorted(hub.paths(repo)) == [".gitattributes", "dir/ü#%.txt", "empty.txt", "w.safetensors"]
    assert hub.content(repo, "w.safetensors") == weights
    assert hub.blob(repo, "w.safetensors").startswith(b"version https://git-lfs")
    assert hub.git(repo, "fsck", "--strict") == b""
    with pytest.raises(NodeError) as error:
        node.commit(
            repo=repo,
            title="late",
            parentCommit=head,
            operations=[{"operation": "delete", "path": "empty.txt"}],
        )
    assert error.value.status == 412


def test_edit_of_a_large_file(hub, node, repo):
    """An edit sends the whole file again, in parts."""
    before = os.urandom(6_500_000)
    hub.commit(repo, {"w.bin": before})
    since = hub.last_seq()
    node.commit(
        repo=repo,
        title="Edit",
        operations=[
            {
                "operation": "edit",
                "path": "w.bin",
                "originalContent": blob(before),
                "edits": [{"content": blob(b"HEAD"), "start": 0, "end": 4}],
            }
        ],
    )
    assert hub.content(repo, "w.bin") == b"HEAD" + before[4:]
    assert len(hub.requests(since, origin="data", method="PUT")) == 7


def test_commit_as_pull_request(hub, node, repo):
    made = node.commit(
        repo=repo,
        title="Please",
        isPullRequest=True,
        token=hub.tokens["other"],
        operations=[{"operation": "addOrUpdate", "path": "p.txt", "content": blob(b"p")}],
    )
    assert made["pullRequestUrl"] == f"{hub.endpoint}/{repo}/discussions/1"
    assert hub.content(repo, "p.txt", "refs/pr/1") == b"p"
    assert "p.txt" not in hub.paths(repo)


def test_uploads_and_deletions(hub, node, repo, tmp_path):
    files = {"a.txt": b"a", "sub/b.bin": os.urandom(5000), "sub/deep/c.txt": b"c"}
    for name, data in files.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(data)
    node.uploadFiles(repo=repo, files=[{"folder": str(tmp_path / "up")}], commitTitle="Folder")
    assert {path: hub.content(repo, "up/" + path) for path in files} == files
    node.uploadFile(repo=repo, file={"path": "one.txt", "content": blob(b"one")})
    events = node.uploadFilesWithProgress(
        repo=repo, files=[{"path": "w.bin", "content": blob(os.urandom(9000))}]
    )
    assert [event["phase"] for event in events if event["event"] == "phase"] == [
        "preuploading",
        "uploadingLargeFiles",
        "committing",
    ]
    node.deleteFile(repo=repo, path="one.txt")
    node.deleteFiles(repo=repo, paths=["up/a.txt", "w.bin"])
    assert sorted(hub.paths(repo)) == [".gitattributes", "up/sub/b.bin", "up/sub/deep/c.txt"]


def test_listings(hub, node, filled):
    repo, files = filled
    hub.config(page_size=2)
    found = {item["path"]: item for item in node.listFiles(repo=repo, recursive=True, expand=True)}
    assert {path for path, item in found.items() if item["type"] == "file"} == {*files, ".gitattributes"}
    assert found["model.safetensors"]["lfs"]["size"] == 300_000
    assert found["nested"]["lastCommit"]["id"] == hub.head(repo)
    assert {item["path"] for item in node.listFiles(repo=repo, path="nested")} == {
        "nested/deeper",
        "nested/w.bin",
    }
    infos = node.pathsInfo(repo=repo, paths=["nested", "config.json", "missing"], expand=True)
    assert [item["path"] for item in infos] == ["nested", "config.json"]
    assert [item["oid"] for item in node.listCommits(repo=repo, batchSize=1)] == [
        oid for oid, _ in hub.history(repo)
    ]
    assert node.countCommits(repo=repo) == 2


@pytest.mark.parametrize("private", [False, True])
def test_downloads(hub, node, repo, private, tmp_path):
    """No empty file and no name with #: the library asks for byte 0, and sends names as they are."""
    files = {
        "config.json": b"{}",
        "nested/w.bin": b"w",
        "ünï/naïve.txt": b"n",
        "model.safetensors": os.urandom(300_000),
    }
    hub.commit(repo, files)
    hub.set_repo(repo, private=private)
    for path, data in files.items():
        assert node.fileExists(repo=repo, path=path)
        info = node.fileDownloadInfo(repo=repo, path=path)
        assert info["size"] == len(data)
        assert content(node.downloadFile(repo=repo, path=path)) == data
    assert content(node.downloadFile(repo=repo, path="model.safetensors", raw=True)) == hub.blob(
        repo, "model.safetensors"
    )
    assert node.downloadFile(repo=repo, path="missing") is None
    assert not node.fileExists(repo=repo, path="missing")
    cached = node.downloadFileToCacheDir(repo=repo, path="config.json", cacheDir=str(tmp_path))
    assert pathlib.Path(cached).read_bytes() == files["config.json"]
    assert read_tree(node.snapshotDownload(repo=repo, cacheDir=str(tmp_path))) == files


def test_safetensors_header(hub, node, repo):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    hub.commit(repo, {"model.safetensors": len(header).to_bytes(8, "little") + header + bytes(24)})
    found = node.parseSafetensorsMetadata(repo=repo, computeParametersCount=True)
    assert found["header"]["w"]["shape"] == [2, 3]
    assert found["parameterCount"] == {"F32": 6}


def test_command(hub, node, new_id, tmp_path):
    """The package's own command, `hfjs`: a folder to a new repository, a branch, and away with it."""

    def hfjs(*arguments):
        CALLS[f"hfjs {arguments[0]}"] += 1
        program = MODULES / "node_modules" / ".bin" / "hfjs"
        command = [pathlib.Path(sys.executable).with_name("node"), program, *arguments]
        done = subprocess.run(command, text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    (tmp_path / "sub").mkdir()
    weights = os.urandom(7_000_000)
    (tmp_path / "sub" / "w.bin").write_bytes(weights)
    hfjs("upload", new_id, tmp_path, "--quiet", "--private", "--commit-message", "By command")
    assert hub.history(new_id)[0][1] == "By command"
    assert hub.content(new_id, "sub/w.bin") == weights
    hfjs("branch", "create", new_id, "dev")
    assert hub.head(new_id, "dev") == hub.head(new_id)
    hfjs("repo", "delete", new_id)
    assert not node.repoExists(repo=new_id)
