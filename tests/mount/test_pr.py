"""Pull requests: written under refs/pr/N, opened by -o pr, and what becomes of a conflict with on_conflict=pr."""

import json

import harness


def status(box, m, path="main"):
    answer = json.loads(box.hugfs("status", "--json", m.path(path)).out)
    return answer["mounts"][0]["revisions"][0]


def pulls(hub, repo):
    answer = hub.call("GET", f"/api/{repo.type}s/{repo.id}/discussions?type=pull_request")
    return {item["num"]: (item["status"], item["title"], item["author"]["name"]) for item in answer["discussions"]}


def content(repo, path, number=1):
    return repo.content(path, f"refs/pr/{number}")


def test_a_pull_request_is_a_folder_that_can_be_written(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    hub.commit(repo.id, {"proposal.txt": b"2"}, create_pr=True)
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh("echo more > main/../refs/pr/1/more.txt")
    harness.eventually(lambda: "more.txt" in repo.paths("refs/pr/1"), 10)
    assert content(repo, "more.txt") == b"more\n" and content(repo, "proposal.txt") == b"2"
    assert repo.files() == {"a.txt": b"1"} and len(pulls(hub, repo)) == 1


def test_one_pull_request_for_a_mount(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "pr", "commit=manual")
    m.sh("echo one > main/one.txt")
    first = box.hugfs("commit", "-m", "Mine", m.path("main"))
    url = f"{hub.endpoint}/{repo.prefix}{repo.id}/discussions/1"
    assert first.out.strip() == url and status(box, m)["pull_request"] == url
    assert pulls(hub, repo) == {1: ("open", "Mine", "user")}
    assert repo.files() == {"a.txt": b"1"} and content(repo, "one.txt") == b"one\n"
    # The mount goes on to show what was written, also after its staging was given back.
    assert m.read("main/one.txt") == b"one\n"
    m.sh("echo two > main/two.bin; echo again > main/one.txt; rm main/a.txt")
    box.hugfs("commit", m.path("main"))
    assert len(pulls(hub, repo)) == 1 and repo.files() == {"a.txt": b"1"}
    assert set(repo.paths("refs/pr/1")) == {"one.txt", "two.bin"} and content(repo, "one.txt") == b"again\n"
    assert m.ls("main") in (["one.txt", "two.bin"], [".gitattributes", "one.txt", "two.bin"])


def test_a_reader_proposes_regular_files_only(mount, box, hub):
    box.expect("not permitted|large .LFS. files only")
    repo = box.repo({"a.txt": b"1"})
    box.token = "other"
    m = mount(repo.uri, "pr", "commit=manual")
    m.sh("echo mine > main/a.txt")
    box.hugfs("commit", m.path("main"))
    assert pulls(hub, repo) == {1: ("open", "Update a.txt", "other")}
    assert content(repo, "a.txt") == b"mine\n" and repo.content("a.txt") == b"1"
    m.write("main/model.safetensors", bytes(3 << 20))
    refused = box.hugfs("commit", m.path("main"), check=False)
    assert refused.status == 1 and "write access" in refused.err
    assert status(box, m)["last_error"] == "EACCES" and m.stat("main/model.safetensors").size == 3 << 20
    m.sh("rm main/model.safetensors; echo fine > main/fine.txt")
    box.hugfs("commit", m.path("main"))
    assert content(repo, "fine.txt") == b"fine\n" and len(pulls(hub, repo)) == 1


def test_a_killed_daemon_goes_on_with_the_same_one(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "pr", "commit=manual")
    m.sh("echo one > main/one.txt")
    box.hugfs("commit", m.path("main"))
    m.sh("echo two > main/two.txt")
    m.kill()
    m.restart()
    assert m.read("main/one.txt") == b"one\n" and m.read("main/two.txt") == b"two\n"
    box.hugfs("commit", m.path("main"))
    assert len(pulls(hub, repo)) == 1 and content(repo, "two.txt") == b"two\n"


def test_after_a_merge_another_is_opened(mount, box, hub):
    box.expect("refused|not permitted|merged|closed")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "pr", "commit=manual", "poll=0.1")
    m.sh("echo one > main/one.txt")
    box.hugfs("commit", m.path("main"))
    hub.call("POST", f"/api/{repo.type}s/{repo.id}/discussions/1/merge", {"comment": ""})
    m.sh("echo two > main/two.txt")
    box.hugfs("commit", m.path("main"))
    assert {number: item[0] for number, item in pulls(hub, repo).items()} == {1: "merged", 2: "open"}
    assert content(repo, "two.txt", 2) == b"two\n"


def test_a_conflict_becomes_a_pull_request(mount, box, hub):
    box.expect("proposed as")
    repo = box.repo({"a.txt": b"1", "b.txt": b"2"})
    m = mount(repo.uri, "commit=manual", "on_conflict=pr")
    m.sh("echo mine > main/a.txt; echo new > main/new.txt; rm main/b.txt")
    repo.push({"a.txt": b"theirs"})
    result = box.hugfs("commit", m.path("main"))
    assert result.out.strip().endswith("/discussions/1")
    assert repo.files() == {"a.txt": b"theirs", "b.txt": b"2"}
    assert {path: content(repo, path) for path in ("a.txt", "new.txt")} == {"a.txt": b"mine\n", "new.txt": b"new\n"}
    assert "b.txt" not in repo.paths("refs/pr/1")
    assert m.read("main/a.txt") == b"theirs" and not m.exists("main/new.txt") and m.exists("main/b.txt")
    assert status(box, m)["staged"]["files"] == 0
    m.sh("echo over > main/a.txt")
    box.hugfs("commit", m.path("main"))
    assert repo.content("a.txt") == b"over\n" and len(pulls(hub, repo)) == 1


def test_what_is_in_conflict_is_proposed_when_asked(mount, box, hub):
    box.expect("somebody else changed|proposed as")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit=manual")
    m.sh("echo mine > main/a.txt")
    repo.push({"a.txt": b"theirs"})
    assert box.hugfs("commit", m.path("main"), check=False).status == 1
    m.sh("echo free > main/free.txt")
    box.hugfs("commit", "--on-conflict=pr", "-m", "Please", m.path("main"))
    assert repo.files() == {"a.txt": b"theirs", "free.txt": b"free\n"}
    assert pulls(hub, repo) == {1: ("open", "Please", "user")} and content(repo, "a.txt") == b"mine\n"
    assert m.read("main/a.txt") == b"theirs"
