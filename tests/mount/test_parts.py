"""More than one call of the Hub takes: several commits on a pull request that is merged, so that the branch moves once."""

import json

import pytest

import harness

MANY = {f"d{number % 3}/file {number}.txt": b"%d\n" % number for number in range(23)}


def write_many(m, extra=""):
    m.py("""
        for number in range(23):
            os.makedirs(f'main/d{number % 3}', exist_ok=True)
            open(f'main/d{number % 3}/file {number}.txt', 'w').write(f'{number}\\n')
        open('main/large.bin', 'wb').write(bytes(range(256)) * 10000)
        os.unlink('main/old.txt')
        """ + extra)


def pulls(hub, repo):
    answer = hub.call("GET", f"/api/{repo.type}s/{repo.id}/discussions?type=pull_request")
    return {item["num"]: item["status"] for item in answer["discussions"]}


def moves(repo):
    """How often the branch moved: its first parents since the mark."""
    return len(repo.hub.git(repo.id, "rev-list", "--first-parent", f"{repo.base['main']}..main", type=repo.type).split())


def whole(repo):
    return repo.files() == {"a.txt": b"1", "large.bin": bytes(range(256)) * 10000, **MANY}


def test_the_branch_moves_once(mount, box, hub):
    repo = box.repo({"a.txt": b"1", "old.txt": b"old"})
    m = mount(repo.uri, "commit=manual", "commit_files=5")
    write_many(m)
    seq = hub.last_seq()
    box.hugfs("commit", "-m", "Many", m.path("main"))
    assert whole(repo) and moves(repo) == 1 and pulls(hub, repo) == {1: "merged"}
    posts = [item for item in hub.requests(since=seq, method="POST") if "/commit/" in item["path"]]
    assert len(posts) == 5 and all("refs%2Fpr%2F1" in item["path"] for item in posts)
    staged = json.loads(box.hugfs("status", "--json", m.path("main")).out)["mounts"][0]["revisions"][0]["staged"]
    assert staged["files"] == 0 and m.read("main/d1/file 1.txt") == b"1\n"
    m.sh("echo more > main/more.txt")
    box.hugfs("commit", m.path("main"))
    assert moves(repo) == 2 and pulls(hub, repo) == {1: "merged"}


@pytest.mark.parametrize("where", ["part", "merge"])
def test_a_killed_daemon_goes_on_where_it_was(mount, box, hub, where):
    repo = box.repo({"a.txt": b"1", "old.txt": b"old"})
    m = mount(repo.uri, "commit=manual", "commit_files=5")
    write_many(m)
    if where == "part":
        stalled = hub.fault("/commit/refs%2Fpr%2F1", method="POST", skip=2, stall=True)
    else:
        stalled = hub.fault("/discussions/1/merge", method="POST", stall=True)
    child = box.spawn([box.session.binary, "commit", m.path("main")])
    hub.wait_for(lambda seen: any(item["fault"] == stalled for item in seen))
    assert moves(repo) == 0
    m.kill()
    child.wait()
    hub.clear_faults()
    m.restart()
    seq = hub.last_seq()
    box.hugfs("commit", m.path("main"))
    assert whole(repo) and moves(repo) == 1 and pulls(hub, repo) == {1: "merged"}
    posts = [item for item in hub.requests(since=seq, method="POST") if "/commit/" in item["path"]]
    assert len(posts) == (3 if where == "part" else 0)


def test_a_merge_whose_answer_is_lost_is_found(mount, box, hub):
    box.expect("merging|504|did not answer|not published")
    repo = box.repo({"a.txt": b"1", "old.txt": b"old"})
    m = mount(repo.uri, "commit=manual", "commit_files=5")
    write_many(m)
    hub.fault("/discussions/1/merge", method="POST", lose_answer_status=504)
    box.hugfs("commit", m.path("main"))
    assert whole(repo) and moves(repo) == 1 and pulls(hub, repo) == {1: "merged"}


def test_a_refused_merge_is_efbig_and_names_the_pull_request(mount, box, hub):
    box.expect("merging|403|504|not published")
    repo = box.repo({"a.txt": b"1", "old.txt": b"old"})
    m = mount(repo.uri, "commit=manual", "commit_files=5")
    write_many(m)
    hub.fault("/discussions/1/merge", method="POST", status=403, times=2)
    refused = box.hugfs("commit", m.path("main"), check=False)
    assert refused.status == 1 and f"{repo.id}/discussions/1" in refused.err
    state = json.loads(box.hugfs("status", "--json", m.path("main")).out)["mounts"][0]["revisions"][0]
    assert state["last_error"] == "EFBIG" and state["staged"]["files"] == 24 and moves(repo) == 0
    # The same again goes on there; merged by somebody, it is settled.
    assert box.hugfs("commit", m.path("main"), check=False).status == 1
    assert list(pulls(hub, repo)) == [1]
    hub.call("POST", f"/api/{repo.type}s/{repo.id}/discussions/1/merge", {"comment": ""})
    box.hugfs("commit", m.path("main"))
    assert whole(repo) and moves(repo) == 1 and m.read("main/large.bin") == bytes(range(256)) * 10000
    # That pull request says nothing of a later commit whose answer is lost.
    m.sh("echo more > main/more.txt")
    hub.fault("/commit/main", method="POST", status=504)
    box.hugfs("commit", m.path("main"))
    assert repo.content("more.txt") == b"more\n" and moves(repo) == 2


def test_a_push_meanwhile_is_no_obstacle(mount, box, hub):
    repo = box.repo({"a.txt": b"1", "old.txt": b"old"})
    m = mount(repo.uri, "commit=manual", "commit_files=5")
    write_many(m)
    base = repo.base["main"]
    repo.push({"theirs.txt": b"theirs"})
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {"a.txt": b"1", "theirs.txt": b"theirs", "large.bin": bytes(range(256)) * 10000, **MANY}
    assert base != repo.base["main"] and moves(repo) == 1
    harness.eventually(lambda: m.read("main/theirs.txt") == b"theirs", 5)
