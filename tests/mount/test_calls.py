"""What a commit costs: the calls that the protocol needs, and nothing afterwards."""

import pytest

import harness

LARGE = bytes(range(256)) * 8192  # 2 MiB, binary: LFS


def calls(hub, seq):
    return [(item["method"], item["path"].split("/models/")[-1].split("/", 2)[-1].split("/")[0].split("?")[0])
            for item in hub.requests(since=seq, origin="hub")]


@pytest.mark.parametrize("count", [1, 100, 1000])
def test_calls_of_a_commit(mount, box, hub, count):
    repo = box.repo({"a.txt": b"1", "d/b.txt": b"2"})
    m = mount(repo.uri, "commit=manual", "poll=600")
    m.sh("ls -R main >/dev/null")
    m.py(f"for n in range({count}): open(f'main/d/f{{n}}.txt', 'w').write(str(n))")
    seq = hub.last_seq()
    box.hugfs("commit", m.path("main"))
    made = calls(hub, seq)
    print(count, made)
    assert sorted(word for _, word in made) == ["commit", "preupload"]
    seq = hub.last_seq()
    names = m.ls("main/d")
    assert len(names) == count + 1 and m.read("main/d/f0.txt") == b"0"
    assert calls(hub, seq) == []


def test_listings_of_our_commit_are_what_git_has(mount, box, hub):
    repo = box.repo({"a.txt": b"1", "d/b.txt": b"2", "d/e/c.txt": b"3", "gone/x.txt": b"4", "w.bin": LARGE,
                     "z/y.txt": b"5", "f": b"a file"})
    m = mount(repo.uri, "commit=manual", "poll=0.3")
    m.sh("""ls -R main >/dev/null
         cd main; echo new > d/e/new.txt; echo changed > a.txt; rm -r gone; mkdir -p d.x/deep; echo 1 > d.x/deep/1; echo 2 > d-x
         mv w.bin d/v.bin; head -c 3000000 /dev/urandom > d/more.bin; rm f; mkdir f; echo below > f/below""")
    seq = hub.last_seq()
    box.hugfs("commit", m.path("main"))
    m.sh("ls -lR main >/dev/null")
    assert [item for item in hub.requests(since=seq) if "/tree/" in item["path"] and item["method"] == "GET"] == []
    assert set(m.files("main")) == set(repo.paths()) | {".gitattributes"}
    for path in ("a.txt", "d/b.txt", "d/v.bin", "d/more.bin", "f/below"):
        assert m.xattr(f"main/{path}", "oid")
    # The folders' ids are git's: a push elsewhere asks for the root alone.
    repo.push({"z/other.txt": b"6"})
    seq = hub.last_seq()
    m.py("""
        deadline = time.monotonic() + 10
        while 'other.txt' not in os.listdir('main/z'):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        """)
    m.sh("ls -lR main >/dev/null")
    asked = {item["path"].split("/tree/")[-1].split("?")[0].partition("/")[2] for item in hub.requests(since=seq)
             if "/tree/" in item["path"] and item["method"] == "GET"}
    assert asked <= {"", "z"}, asked
    assert m.read("main/d/v.bin") == LARGE


def test_folder_that_becomes_a_file(mount, box):
    """The file that took the folder's name stays, whatever of the folder goes in the same commit."""
    repo = box.repo({"a.txt": b"1", "d/b.txt": b"2", "d/e/c.txt": b"3", "d-x": b"4"})
    m = mount(repo.uri, "commit=manual", "poll=600")
    m.sh("ls -R main >/dev/null; rm -r main/d; echo file > main/d")
    box.hugfs("commit", m.path("main"))
    assert repo.content("d") == b"file\n"
    assert set(m.ls("main")) - {".gitattributes"} == {"a.txt", "d", "d-x"}
    assert m.read("main/d") == b"file\n"


def test_attributes_that_the_hub_adds_are_seen(mount, box, hub):
    """An LFS file that no rule covers: the Hub edits .gitattributes without telling."""
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit=manual", "poll=0.3")
    before = m.read("main/.gitattributes")
    m.write("main/data.unheardof", LARGE)
    box.hugfs("commit", m.path("main"))
    assert repo.content(".gitattributes") != before
    harness.eventually(lambda: m.read("main/.gitattributes") == repo.content(".gitattributes"), 5)
