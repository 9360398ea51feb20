"""mkdir above the revisions: branches and repositories."""

import harness


def branches(hub, repo):
    answer = hub.call("GET", f"/api/{repo.type}s/{repo.id}/refs")
    return {item["name"]: item["targetCommit"] for item in answer["branches"]}


def test_mkdir_in_the_revisions_is_a_branch(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.2")
    m.ls("main")
    m.sh("mkdir dev feature%2Fx; ls dev feature/x")
    assert branches(hub, repo) == {"main": repo.head(), "dev": repo.head(), "feature/x": repo.head()}
    assert {"main", "dev", "feature"} <= set(m.ls()) and m.read("feature/x/a.txt") == b"1"
    repo.mark("dev")
    m.sh("echo new > dev/new.txt")
    repo.wait_published(1, "dev")
    assert repo.files() == {"a.txt": b"1"} and repo.content("new.txt", "dev") == b"new\n"
    assert m.outcome("os.mkdir('dev')") == "EEXIST" and m.outcome("os.mkdir('refs')") in ("EINVAL", "EEXIST")
    assert m.outcome("os.mkdir('" + "a" * 40 + "')") in ("EINVAL", "ENOENT")
    assert m.outcome("os.rmdir('dev')") == "EPERM"


def test_mkdir_of_a_name_is_a_repository(mount, box, hub):
    m = mount("hf://", "commit_delay=0.2", "space_sdk=gradio")
    names = [f"made-{kind}-{box.dir[-6:].replace('_', 'x').lower()}" for kind in ("model", "dataset", "space")]
    m.sh(f"mkdir user/{names[0]} datasets/user/{names[1]} spaces/user/{names[2]}")
    for kind, name in zip(("models", "datasets", "spaces"), names):
        info = hub.call("GET", f"/api/{kind}/user/{name}")
        assert info["private"] is True
    m.sh(f"echo hello > user/{names[0]}/hello.txt")
    repo = harness.Repo(hub, f"user/{names[0]}", "model")
    harness.eventually(lambda: "hello.txt" in repo.paths(), 10)
    assert m.outcome(f"os.mkdir('user/{names[0]}')") == "EEXIST"
    assert m.outcome("os.mkdir('user/a--b')") in ("EINVAL", "ENOENT")
    assert m.outcome("os.mkdir('nobody-has-this-name')") in ("EPERM", "ENOENT")


def test_no_repository_where_none_is_wanted_or_permitted(mount, box, hub):
    box.expect("not permitted|403|making")
    never = mount("hf://", "create=no")
    assert never.outcome("os.mkdir('user/never-made')") == "EPERM"
    m = mount("hf://", "create=public")
    assert m.outcome("os.mkdir('other/not-mine')") == "EACCES"
    name = f"open-{box.dir[-6:].replace('_', 'x').lower()}"
    m.sh(f"mkdir user/{name}")
    assert hub.call("GET", f"/api/models/user/{name}")["private"] is False


def test_read_only_makes_nothing(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "ro")
    assert m.outcome("os.mkdir('dev')") == "EROFS" and set(branches(hub, repo)) == {"main"}
