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


# Many refs

def commit_files(git, folder, message, **files):
    """Write files ({name: content}, `_` for the dot), add and commit them."""
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    git("add", ".", cwd=folder)
    git("commit", "-q", "-m", message, cwd=folder)
    return git("rev-parse", "HEAD", cwd=folder).strip()


@pytest.fixture
def work(hub, repo, git, tmp_path):
    """A clone of a new repository that may push."""
    git("clone", "-q", clone_url(hub, repo, hub.tokens["user"]), "work")
    return tmp_path / "work"


def names(hub, repo, kind):
    return sorted(ref["name"] for ref in hub.call("GET", f"{hub.api(repo)}/refs?include_prs=1")[kind])


def test_branches_and_tags_both_ways(hub, repo, git, work):
    git("switch", "-q", "-c", "feature/x", cwd=work)
    first = commit_files(git, work, "on a branch", x_txt=b"x", w_bin=bytes(1000))
    git("tag", "v1", cwd=work)
    git("tag", "-a", "v2", "-m", "annotated", cwd=work)
    git("push", "-q", "origin", "feature/x", "v1", "v2", cwd=work)
    assert names(hub, repo, "branches") == ["feature/x", "main"]
    assert [hub.head(repo, name) for name in ("feature/x", "v1", "v2")] == [first] * 3
    hub.branch(repo, "api/branch", start="v1")
    second = hub.commit(repo, {"y.txt": b"y"}, branch="api/branch")
    hub.tag(repo, "v3", rev="api/branch", message="by the API")
    git("fetch", "-q", "--tags", cwd=work)
    assert git("rev-parse", "origin/api/branch", "v3^{commit}", cwd=work).split() == [second] * 2
    git("push", "-q", "origin", "--delete", "feature/x", "v1", cwd=work)
    assert (names(hub, repo, "branches"), names(hub, repo, "tags")) == (["api/branch", "main"], ["v2", "v3"])


def test_fetch_prunes_what_the_api_deleted(hub, repo, git, work):
    for number in range(5):
        hub.branch(repo, f"b{number}")
    git("fetch", "-q", cwd=work)
    for number in range(4):
        hub.call("DELETE", f"{hub.api(repo)}/branch/b{number}")
    git("fetch", "-q", "--prune", cwd=work)
    assert git("branch", "-r", "--format", "%(refname:short)", cwd=work).split()[-2:] == ["origin/b4", "origin/main"]


def test_pull_meets_commits_of_the_api(hub, repo, git, work):
    hub.commit(repo, {"a.txt": b"1", "w.bin": b"\1" * 5000})
    git("pull", "-q", cwd=work)
    assert (work / "w.bin").read_bytes() == b"\1" * 5000
    commit_files(git, work, "mine", mine_txt=b"m")
    hub.commit(repo, {"a.txt": b"2", "w.bin": b"\2" * 5000})
    assert git("push", cwd=work, check=False).returncode != 0
    git("pull", "-q", "--rebase", cwd=work)
    git("push", "-q", cwd=work)
    assert hub.history(repo)[0][1] == "mine"
    assert (work / "w.bin").read_bytes() == b"\2" * 5000
    git("commit", "-q", "--amend", "-m", "amended", cwd=work)
    git("push", "-q", "--force", cwd=work)
    assert hub.history(repo)[0][1] == "amended"
    assert hub.git(repo, "fsck", "--strict", "--no-dangling") == b""


def test_pull_request_refs(hub, repo, git, work):
    """Fetched, checked out, pushed to, and merged by the API."""
    hub.commit(repo, {"p.txt": b"p"}, create_pr=True)
    git("fetch", "-q", "origin", "refs/pr/1:pr/1", cwd=work)
    git("switch", "-q", "pr/1", cwd=work)
    assert (work / "p.txt").read_bytes() == b"p"
    head = commit_files(git, work, "more", q_bin=bytes(300))
    git("push", "-q", "origin", "pr/1:refs/pr/1", cwd=work)
    assert hub.head(repo, "refs/pr/1") == head
    hub.call("POST", f"{hub.api(repo)}/discussions/1/merge", {})
    git("switch", "-q", "main", cwd=work)
    git("pull", "-q", cwd=work)
    assert read_tree(work) == {"p.txt": b"p", "q.bin": bytes(300)}


def test_shallow_and_single_branch_clones(hub, repo, git, tmp_path):
    for number in range(4):
        hub.commit(repo, {"a.txt": b"%d" % number * 1000, f"f{number}.txt": b"%d" % number})
    git("clone", "-q", "--depth", "1", clone_url(hub, repo), "shallow")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "shallow").strip() == "1"
    git("fetch", "-q", "--unshallow", cwd=tmp_path / "shallow")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "shallow").strip() == "5"
    git("clone", "-q", "--branch", "main", "--single-branch", clone_url(hub, repo), "single")
    assert read_tree(tmp_path / "single") == read_tree(tmp_path / "shallow")


# git-lfs

def test_large_files(hub, repo, git, work, tmp_path):
    """Larger than the Hub's threshold for parts, which git-lfs does not know, several at once."""
    contents = {f"big{n}.bin": os.urandom(7_000_000 + n) for n in range(3)}
    for name, content in contents.items():
        (work / name).write_bytes(content)
    commit_files(git, work, "large")
    since = hub.last_seq()
    git("push", "-q", cwd=work)
    assert sorted(item["received"] for item in hub.requests(since, origin="data", method="PUT")) == [
        len(content) for content in contents.values()]
    assert {name: hub.content(repo, name) for name in contents} == contents
    git("clone", "-q", clone_url(hub, repo), "again")
    assert read_tree(tmp_path / "again") == contents
    git("lfs", "fsck", cwd=tmp_path / "again")


def test_objects_are_fetched_and_pruned(hub, repo, git, work):
    versions = [os.urandom(2000) for _ in range(3)]
    for content in versions:
        hub.commit(repo, {"w.bin": content})
    hub.branch(repo, "side", start="main")
    side = os.urandom(3000)
    hub.commit(repo, {"side.bin": side}, branch="side")
    git("pull", "-q", cwd=work)
    since = hub.last_seq()
    git("lfs", "fetch", "--all", cwd=work)
    assert len(hub.requests(since, origin="data", method="GET")) == 3
    assert "w.bin" in git("lfs", "ls-files", cwd=work)
    git("config", "lfs.pruneoffsetdays", "0", cwd=work)
    git("config", "lfs.fetchrecentrefsdays", "0", cwd=work)
    git("lfs", "prune", "--verify-remote", cwd=work)
    git("switch", "-q", "side", cwd=work)
    assert ((work / "w.bin").read_bytes(), (work / "side.bin").read_bytes()) == (versions[-1], side)


def test_push_of_an_object_that_is_known_uploads_nothing(hub, repo, git, work):
    content = os.urandom(4000)
    hub.commit(repo, {"w.bin": content})
    git("pull", "-q", cwd=work)
    commit_files(git, work, "a copy", copy_bin=content)
    since = hub.last_seq()
    git("push", "-q", cwd=work)
    assert hub.requests(since, origin="data", method="PUT") == []
    assert hub.blob(repo, "copy.bin") == hub.blob(repo, "w.bin")
