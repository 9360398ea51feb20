"""The verbs that look: diff, log, tag, fetch, refresh, cache, doctor; and what they print for programs."""

import json

import harness


def answer(box, *words):
    return json.loads(box.hugfs(*words).out)


def test_diff_tells_what_the_next_commit_would_hold(mount, box):
    repo = box.repo({"a.txt": b"1234", "same.txt": b"same", "gone.txt": b"12", "w.bin": bytes(9), "d/x.txt": b"1",
                     "d/y.txt": b"22"})
    m = mount(repo.uri, "commit=manual")
    writer = m.start_py("file = open('main/open.txt', 'w'); file.write('x'); file.flush(); say('open'); hear()")
    writer.expect("open")
    m.sh("cd main; echo changed > a.txt; printf same > same.txt; rm gone.txt; mv w.bin v.bin; echo new > new.txt; "
         "rm -r d; echo junk > x.tmp")
    changes = {item["path"]: item for item in answer(box, "diff", "--json", m.path("main"))["revisions"][0]["changes"]}
    assert {path: item["change"] for path, item in changes.items()} == {
        "a.txt": "changed", "same.txt": "changed", "gone.txt": "deleted", "v.bin": "renamed", "new.txt": "added",
        "d": "deleted"}
    assert changes["v.bin"]["from"] == "w.bin" and changes["d"]["old_size"] == 3
    assert (changes["a.txt"]["old_size"], changes["a.txt"]["size"]) == (4, 8)
    text = box.hugfs("diff", m.path("main")).out
    assert "w.bin > v.bin" in text and "4 B > " in text
    assert answer(box, "diff", "--json", m.path("main/new.txt"))["revisions"][0]["changes"] == [changes["new.txt"]]
    writer.tell()
    writer.finish()
    box.hugfs("commit", m.path("main"))
    assert answer(box, "diff", "--json", m.path("main"))["revisions"][0]["changes"] == []


def test_log_of_a_revision_and_of_a_file(mount, box):
    repo = box.repo({"a.txt": b"1"})
    first = repo.push({"b.txt": b"2"}, summary="Bring b")
    second = repo.push({"a.txt": b"3"}, summary="Change a")
    third = repo.push({"d/c.txt": b"4"}, summary="Bring c")
    m = mount(repo.uri)
    commits = answer(box, "log", "--json", "-n", "3", m.path("main"))["commits"]
    assert [item["id"] for item in commits] == [third, second, first]
    assert commits[1]["title"] == "Change a" and commits[1]["author"] == "user" and commits[1]["date"] > 1600000000
    assert "Change a" in box.hugfs("log", m.path("main")).out
    assert [item["id"] for item in answer(box, "log", "--json", m.path("main/b.txt"))["commits"]] == [first]
    of_a = [item["title"] for item in answer(box, "log", "--json", m.path("main/a.txt"))["commits"]]
    assert of_a[0] == "Change a" and len(of_a) == 2
    assert [item["id"] for item in answer(box, "log", "--json", m.path("main/d"))["commits"]] == [third]


def test_tag_names_the_head(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "poll=60")
    m.ls()
    assert repo.head()[:12] in box.hugfs("tag", "-m", "The first", "v1", m.path("main")).out
    assert repo.head("v1^{commit}") == repo.head()
    assert m.read("v1/a.txt") == b"1"
    repo.push({"a.txt": b"2"})
    again = box.hugfs("tag", "v1", m.path("main"), check=False)
    assert again.status == 1 and "already" in again.err
    box.hugfs("tag", "v2", m.path("main"))  # the head of now, not the one that was seen last
    assert repo.head("v2^{commit}") == repo.head()


def test_refresh_looks_now(mount, box):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "poll=600")
    assert m.read("main/a.txt") == b"1"
    repo.push({"a.txt": b"2", "new.txt": b"3"})
    assert m.read("main/a.txt") == b"1"
    assert repo.head()[:12] in box.hugfs("refresh", m.path("main")).out
    harness.eventually(lambda: m.read("main/a.txt") == b"2", 5)
    assert m.read("main/new.txt") == b"3"


def test_fetch_warms_the_cache(mount, box, hub):
    files = {"a.bin": bytes(range(256)) * 5000, "d/b.txt": b"b", "d/e/c.txt": b"c"}
    repo = box.repo(files)
    m = mount(repo.uri)
    assert "3 files" in box.hugfs("fetch", m.path("main/a.bin"), m.path("main/d")).out
    seq = hub.last_seq()
    assert {path: data for path, data in m.files("main").items() if path in files} == files
    assert [item for item in hub.requests(since=seq, origin="data")] == []
    assert box.hugfs("fetch", "/etc/passwd", check=False).status == 1


def test_cache_is_listed_checked_and_cleared(mount, box, hub):
    repo = box.repo({"a.bin": bytes(range(256)) * 20000})
    m = mount(repo.uri)
    m.read("main/a.bin")
    m.unmount()
    listed = answer(box, "cache", "--json")
    assert listed["bytes"] > 5000000 and any(item["size"] == 5120000 for item in listed["objects"])
    assert "0 were not" in box.hugfs("cache", "verify").out
    assert "freed" in box.hugfs("cache", "clear").out
    assert answer(box, "cache", "ls", "--json")["bytes"] == 0
    m.restart()
    assert m.read("main/a.bin") == bytes(range(256)) * 20000


def test_doctor(box, hub):
    result = box.hugfs("doctor", check=False)
    assert result.status == 0, result
    assert "of user" in result.out and result.out.count("ok ") >= 6
    refused = box.hugfs("doctor", check=False, env={"HF_TOKEN": "hf_wrongwrongwrong"})
    assert refused.status == 1 and "hf auth login" in refused.out
    unreachable = box.hugfs("doctor", check=False, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert unreachable.status == 1 and "WRONG endpoint" in unreachable.out
