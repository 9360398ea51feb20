"""When a commit happens by itself, what it holds, and what it costs."""

import hashlib
import pickle
import time

import pytest

import harness
from harness import noise

MIB = 1 << 20


def puts(hub, seq):
    return hub.requests(since=seq, method="PUT")


def commit_posts(hub, seq):
    return [item for item in hub.requests(since=seq, method="POST") if "/commit/" in item["path"]]


EVIL = ["a b#c?%25.txt", "ünï ☃.txt", "-dash", "quo\"te's.txt", "new\nline.txt", "semi;colon&amp;.md",
        "*star*.json", "  blanks  ", "[brackets].bin", "$HOME", "100%", "~tilde", "a+b=c@d,e!.txt", "ends with dot."]


def model_files():
    """30 files: small, LFS, nested, empty, and with evil names."""
    files = {name: name.encode() for name in EVIL}
    files |= {"model.safetensors": noise(5 * MIB, 1), "deep/er/weights.bin": noise(2 * MIB, 2), "tiny.bin": b"tiny",
              "big.txt": noise(6 * MIB, 3), "empty": b"", "deep/empty.bin": b"", "config.json": b"{}\n",
              "README.md": b"---\nlicense: mit\n---\n# A model\n"}
    files |= {f"deep/part {number}/évil #{number}.txt": noise(1000 * number, number) for number in range(8)}
    assert len(files) == 30
    return files


@pytest.mark.limit(100)
@pytest.mark.parametrize("whole_hub", [False, True], ids=["repository", "hub"])
def test_a_model_is_one_commit(mount, box, hub, tmp_path, whole_hub):
    """Acceptance line 2: pauses between files, one file that takes 10 s, a log held open throughout."""
    repo = box.repo()
    m = mount("hf://" if whole_hub else repo.uri, "open_wait=15")
    branch = m.path(repo.id if whole_hub else "main")
    files, source = model_files(), box.folder("model")
    box.run([harness.PYTHON, "-c", "import os, pickle, sys\n"
             "for name, data in pickle.load(sys.stdin.buffer).items():\n"
             "    path = os.path.join(sys.argv[1], name)\n"
             "    os.makedirs(os.path.dirname(path), exist_ok=True)\n"
             "    open(path, 'wb').write(data)\n", source], stdin=pickle.dumps(files))
    log = m.start_py("""
        log = open(sys.argv[1] + '/train.log', 'a', 1)
        log.write('begin\\n')
        say('open')
        hear()
        log.write('end\\n')
        log.close()
        say('closed')
        """, branch)
    log.expect("open")
    slow = m.start_py("""
        with open(sys.argv[1] + '/slow.bin', 'wb', 0) as file:
            for _ in range(20):
                file.write(bytes(50000))
                time.sleep(0.5)
        say('closed')
        """, branch)
    box.run(["sh", "-euc", 'cd "$0"; for f in *; do cp -r "./$f" "$1/"; case $f in [a-d]*) sleep 1;; esac; done',
             source, branch], timeout=60)
    assert repo.published() == []
    slow.expect("closed")
    closed = time.monotonic()
    slow.finish()
    files["slow.bin"] = bytes(1000000)
    assert repo.published() == []
    repo.wait_published(1, timeout=20 - (time.monotonic() - closed))
    assert repo.files() == files
    assert {name: data for name, data in harness.git_clone(hub, repo, str(tmp_path)).items()
            if name != ".gitattributes"} == files
    folder = harness.snapshot_download(hub, repo, local_dir=str(tmp_path / "snapshot"))
    assert {name: data for name, data in harness.plain_files(folder, ".cache").items()
            if name != ".gitattributes"} == files
    log.tell()
    log.expect("closed")
    log.finish()
    repo.wait_published(2)
    assert repo.content("train.log") == b"begin\nend\n"


# When

def test_one_file_after_the_quiet_period(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=1")
    m.sh("echo 1 > main/one; sleep 0.6; echo 2 > main/two; sleep 0.6; echo 3 > main/three")
    assert repo.published() == []
    closed = time.monotonic()
    repo.wait_published()
    assert time.monotonic() - closed < 4
    assert set(repo.paths()) == {"a.txt", "one", "two", "three"}


def test_deletions_alone_wait_ten_times_longer(mount, box):
    repo = box.repo({"a.txt": b"a", "b.txt": b"b"})
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh("rm main/a.txt")
    removed = time.monotonic()
    repo.wait_published()
    assert 2 < time.monotonic() - removed < 7
    assert repo.paths() == ["b.txt"]


def test_delete_then_write_is_one_commit(mount, box):
    repo = box.repo({"a.txt": b"a", "b.txt": b"b"})
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh("rm main/*.txt; sleep 1; echo new > main/a.txt")
    repo.wait_published()
    m.unmount()
    assert len(repo.published()) == 1
    assert repo.files() == {"a.txt": b"new\n"}


def test_a_writer_holds_back_for_open_wait(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3", "open_wait=3")
    writer = m.start_py("file = open('main/log', 'w'); file.write('x'); file.flush(); say('open'); hear()")
    writer.expect("open")
    opened = time.monotonic()
    m.write("main/done.txt", b"done")
    repo.wait_published()
    assert 2 < time.monotonic() - opened < 8
    assert repo.paths() == ["a.txt", "done.txt"]
    writer.tell()
    writer.finish()
    repo.wait_published(2)


def test_a_rewritten_file_that_is_open_keeps_its_committed_bytes(mount, box):
    repo = box.repo({"a.txt": b"old", "b/keep.txt": b"keep"})
    m = mount(repo.uri, "commit_delay=0.3", "open_wait=1")
    writer = m.start_py("""
        file = open('main/a.txt', 'w')
        file.write('new')
        file.flush()
        os.rename('main/b', 'main/c')
        os.rename('main/a.txt', 'main/c/moved.txt')
        say('open')
        hear()
        """)
    writer.expect("open")
    repo.wait_published()
    assert repo.files() == {"c/moved.txt": b"old", "c/keep.txt": b"keep"}
    writer.tell()
    writer.finish()
    repo.wait_published(2)
    assert repo.files() == {"c/moved.txt": b"new", "c/keep.txt": b"keep"}


def test_readers_hold_nothing_back(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3")
    reader = m.start_py("""
        open('main/new.txt', 'w').write('new')
        file = open('main/new.txt')
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        say('open')
        hear()
        say(view[:])
        """)
    reader.expect("open")
    repo.wait_published(1, timeout=8)
    reader.tell()
    reader.expect("b'new'")
    reader.finish()


def test_a_file_rewritten_again_and_again_restarts_nothing(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=1", "open_wait=3")
    writer = m.start_py("""
        open('main/important.txt', 'w').write('important')
        say('written')
        for n in range(16):
            open('main/progress.json', 'w').write(str(n))
            time.sleep(0.5)
        """)
    writer.expect("written")
    written = time.monotonic()
    harness.eventually(lambda: "important.txt" in repo.paths(), 12, "important.txt")
    assert time.monotonic() - written < 7.5
    writer.finish()
    harness.eventually(lambda: "progress.json" in repo.paths() and repo.content("progress.json") == b"15", 12)


def test_commit_manual_publishes_nothing_by_itself(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=manual", "commit_delay=0.2")
    m.ls("main")
    seq = hub.last_seq()
    m.write("main/new.bin", noise(3 * MIB))
    assert m.py("fd = os.open('main/new.bin', os.O_RDWR); os.fsync(fd); print('synced')") == "synced\n"
    time.sleep(1)
    assert [item for item in hub.requests(since=seq) if item["method"] in ("POST", "PUT")] == []
    m.unmount()
    assert [item for item in hub.requests(since=seq) if item["method"] in ("POST", "PUT")] == []
    m.restart()
    box.hugfs("commit", m.path("main"))
    assert repo.content("new.bin") == noise(3 * MIB) and len(repo.published()) == 1


def test_commit_fsync_makes_no_quiet_commits(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=fsync", "commit_delay=0.2")
    m.write("main/quiet.txt", b"quiet")
    time.sleep(1.5)
    assert repo.published() == []
    m.py("file = open('main/loud.txt', 'w'); file.write('loud'); file.flush(); os.fsync(file.fileno())")
    assert len(repo.published()) == 1
    assert repo.paths() == ["a.txt", "loud.txt", "quiet.txt"]


def test_branches_are_independent(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    hub.branch(repo.id, "dev")
    repo.mark("dev")
    m = mount(repo.uri, "commit_delay=0.5")
    writer = m.start_py("file = open('main/held', 'w'); say('open'); hear()")
    writer.expect("open")
    m.write("main/x.txt", b"main")
    m.write("dev/x.txt", b"dev")
    repo.wait_published(1, "dev", timeout=8)
    assert repo.published() == []
    writer.tell()
    writer.finish()
    repo.wait_published()
    assert (repo.content("x.txt"), repo.content("x.txt", "dev")) == (b"main", b"dev")


def test_unmounting_publishes_at_once(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=30", "umount_timeout=20")
    m.write("main/new.txt", b"new")
    m.unmount()
    assert len(repo.published()) == 1
    assert repo.content("new.txt") == b"new"


# What is not published

LOCAL = [".tmpXYZ", "edited~", ".#lock", "#auto#", ".a.txt.swp", "4913", ".goutputstream-X", ".~lock", "x.tmp",
         "x.part", "x.crdownload", "x.incomplete", ".nfs0001", ".fuse_hidden01", ".DS_Store", "._x", "Thumbs.db",
         "desktop.ini"]
LOCAL_FOLDERS = [".Trash-1000", ".ipynb_checkpoints", "__pycache__", ".git", ".cache"]


def test_temporary_names_stay_local(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.5")
    m.py("""
        os.mkdir('main/sub')
        for folder in ('main', 'main/sub'):
            for name in sys.argv[1].split():
                open(folder + '/' + name, 'w').write(name)
            for name in sys.argv[2].split():
                os.makedirs(folder + '/' + name + '/deeper')
                open(folder + '/' + name + '/deeper/file.txt', 'w').write(name)
        open('main/sub/real.txt', 'w').write('real')
        """, " ".join(LOCAL), " ".join(LOCAL_FOLDERS))
    repo.wait_published()
    assert repo.paths() == ["a.txt", "sub/real.txt"]
    out = box.hugfs("status", "--json", m.path("main")).out
    assert "x.tmp" in box.hugfs("status", m.path("main")).out or "x.tmp" in out
    m.unmount()
    m.restart()
    assert set(LOCAL + LOCAL_FOLDERS) <= set(m.ls("main/sub"))
    m.sh("mv main/sub/x.tmp main/x.txt; mv main/sub/.ipynb_checkpoints main/checkpoints")
    repo.wait_published(2)
    assert repo.files() == {"a.txt": b"a", "sub/real.txt": b"real", "x.txt": b"x.tmp",
                            "checkpoints/deeper/file.txt": b".ipynb_checkpoints"}


def test_a_temporary_name_that_the_branch_holds_is_ordinary(mount, box):
    repo = box.repo({"a.tmp": b"a", ".cache/b.txt": b"b", "c.txt": b"c"})
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh("echo new > main/a.tmp; echo new > main/.cache/b.txt")
    repo.wait_published()
    assert repo.files() == {"a.tmp": b"new\n", ".cache/b.txt": b"new\n", "c.txt": b"c"}


def test_a_rename_to_a_temporary_name_is_a_deletion(mount, box):
    repo = box.repo({"a.txt": b"a", "b.txt": b"b"})
    m = mount(repo.uri, "commit_delay=0.2")
    m.sh("mv main/a.txt main/a.txt.part")
    repo.wait_published()
    assert repo.paths() == ["b.txt"]
    assert m.read("main/a.txt.part") == b"a"


def test_ignore_options(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3", "ignore=*.log", "ignore=scratch/", "ignore=!*.tmp")
    m.sh("cd main; mkdir scratch sub; touch x.log sub/y.log scratch/z; echo 1 > x.tmp; echo 2 > sub/scratch")
    repo.wait_published()
    assert repo.paths() == ["a.txt", "sub/scratch", "x.tmp"]


def test_empty_folders_are_kept_locally(mount, box):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh("mkdir -p main/none/at/all; echo x > main/x.txt")
    repo.wait_published()
    assert m.ls("main") == [".gitattributes", "a.txt", "none", "x.txt"]
    m.unmount()
    m.restart()
    assert m.ls("main/none/at") == ["all"]
    m.write("main/none/at/all/f", b"now")
    repo.wait_published(2)


# What it holds and costs

def test_lfs_or_regular_as_the_hub_says(mount, box, hub):
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=0.3")
    m.sh("cd main; echo text > a.txt; echo tiny > tiny.bin; : > empty.bin; seq 1000000 > long.txt")
    repo.wait_published()
    assert hub.blob(repo.id, "a.txt") == b"text\n"
    assert hub.blob(repo.id, "empty.bin") == b""
    for name in ("tiny.bin", "long.txt"):
        assert hub.blob(repo.id, name).startswith(b"version https://git-lfs")
    assert b"long.txt filter=lfs" in hub.blob(repo.id, ".gitattributes")
    assert m.read("main/.gitattributes") == hub.blob(repo.id, ".gitattributes")


def test_a_small_commit_is_two_requests(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3", "poll=600")
    m.ls("main")
    m.write("main/first.txt", b"1")
    repo.wait_published()
    seq = hub.last_seq()
    m.sh("echo 2 > main/second.txt; echo 3 > main/third.txt")
    repo.wait_published(2)
    m.ls("main")
    calls = [(item["method"], item["path"].split("/")[-2]) for item in hub.requests(since=seq)]
    assert [call for call in calls if call[0] != "GET"] == [("POST", "preupload"), ("POST", "commit")]
    assert len([call for call in calls if call[0] == "GET"]) <= 1  # the new commit's listing


def test_an_lfs_commit_takes_the_fewest_calls(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3", "poll=600")
    m.ls("main")
    m.write("main/first.txt", b"1")
    repo.wait_published()
    seq = hub.last_seq()
    m.write("main/w.bin", noise(MIB))
    repo.wait_published(2)
    calls = [(item["method"], item["path"].split("/")[-1]) for item in hub.requests(since=seq)]
    assert [call for call in calls if call[0] != "GET" and call[1] != "verify"] == [
        ("POST", "main"), ("POST", "batch"), ("PUT", hashlib.sha256(noise(MIB)).hexdigest()), ("POST", "main")]
    gets = [call[1] for call in calls if call[0] == "GET"]
    assert set(gets) <= {".gitattributes"}  # once and its redirect: does it keep *.bin in LFS, or will the Hub add a line?
    seq = hub.last_seq()
    m.write("main/v.bin", noise(MIB, 2))
    repo.wait_published(3)
    assert not hub.requests(since=seq, method="GET")


def test_multipart_uploads(mount, box, hub):
    hub.config(multipart_threshold=2 * MIB, chunk_size=MIB)
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    m.write("main/large.bin", noise(4 * MIB + 17))
    m.write("main/small.bin", noise(MIB))
    repo.wait_published()
    assert repo.files() == {"large.bin": noise(4 * MIB + 17), "small.bin": noise(MIB)}
    assert sorted(item["received"] for item in puts(hub, seq)) == [17, *[MIB] * 5]


def test_many_files_are_one_commit(mount, box, hub):
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=0.5")
    seq = hub.last_seq()
    m.sh("mkdir main/many; for i in $(seq 400); do echo $i > main/many/$i.txt; done")
    repo.wait_published(timeout=30)
    assert repo.files() == {f"many/{number}.txt": b"%d\n" % number for number in range(1, 401)}
    assert len([item for item in hub.requests(since=seq) if "/preupload/" in item["path"]]) == 1


def test_equal_content_is_uploaded_once(mount, box, hub):
    repo = box.repo()
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    m.sh("head -c 2000000 /dev/zero > main/a.bin; cp main/a.bin main/b.bin; mkdir main/d; cp main/a.bin main/d/c.bin")
    repo.wait_published()
    assert set(repo.files().values()) == {bytes(2000000)}
    assert len(puts(hub, seq)) == 1


def test_rewriting_the_same_bytes_makes_no_commit(mount, box, hub):
    repo = box.repo({"a.txt": b"a\n", "w.bin": noise(MIB)})
    m = mount(repo.uri, "commit_delay=0.2")
    seq = hub.last_seq()
    m.write("main/w.bin", noise(MIB))
    m.sh("echo a > main/a.txt")
    harness.eventually(lambda: m.xattr("main/w.bin", "state") == m.xattr("main/a.txt", "state") == "clean")
    assert commit_posts(hub, seq) == [] and puts(hub, seq) == []


@pytest.mark.parametrize("script, files", [
    ("mv main/w.bin main/v.bin", {"v.bin": 1, "d/x.bin": 2, "d/y.txt": 3}),
    ("mv main/d main/moved", {"w.bin": 1, "moved/x.bin": 2, "moved/y.txt": 3}),
    ("mkdir main/new; mv main/d/x.bin main/new; mv main/w.bin main/d/x.bin",
     {"new/x.bin": 2, "d/x.bin": 1, "d/y.txt": 3}),
], ids=["file", "folder", "crosswise"])
def test_renames_move_no_bytes(mount, box, hub, script, files):
    contents = {1: noise(2 * MIB, 1), 2: noise(3 * MIB, 2), 3: b"regular\n"}
    repo = box.repo({"w.bin": contents[1], "d/x.bin": contents[2], "d/y.txt": contents[3]})
    m = mount(repo.uri, "commit_delay=0.3")
    seq = hub.last_seq()
    m.sh(script)
    repo.wait_published()
    assert repo.files() == {path: contents[number] for path, number in files.items()}
    assert hub.requests(since=seq, origin="data") == []


def test_copies_upload_no_bytes(mount, box, hub):
    repo = box.repo({"w.bin": noise(3 * MIB), "a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.3")
    m.read("main/w.bin")
    seq = hub.last_seq()
    m.sh("cp main/w.bin main/copy.bin; cp -r main/a.txt main/b.txt")
    repo.wait_published()
    assert repo.content("copy.bin") == noise(3 * MIB)
    assert hub.requests(since=seq, origin="data") == []


def test_after_the_commit_everything_is_clean_and_cached(mount, box, hub):
    """Acceptance line 9: neither mtime nor st_ino nor open files change; nothing uploaded is downloaded."""
    old = noise(2 * MIB, 5)
    repo = box.repo({"edited.bin": old, "replaced.txt": b"old"})
    m = mount(repo.uri, "commit_delay=1")
    m.sh("echo text > main/a.txt; mkdir main/d; echo new > main/replaced.txt")
    m.write("main/d/w.bin", noise(3 * MIB))
    m.py("with open('main/edited.bin', 'r+b') as file: file.seek(1000); file.write(b'edit')")
    names = ("a.txt", "d/w.bin", "edited.bin", "replaced.txt")
    reader = m.start_py("""
        files = [open('main/' + name, 'rb') for name in sys.argv[1:]]
        stats = [os.fstat(file.fileno()) for file in files]
        say('open')
        hear()
        same = [os.fstat(file.fileno()) for file in files]
        for one, two in zip(stats, same):
            say((one.st_ino, one.st_mtime_ns, one.st_size) == (two.st_ino, two.st_mtime_ns, two.st_size))
        say([len(file.read()) for file in files])
        """, *names)
    reader.expect("open")
    before = {name: m.stat("main/" + name) for name in names}
    assert m.xattr("main/a.txt", "state") in ("staged", "committing")
    repo.wait_published()
    harness.eventually(lambda: all(m.xattr("main/" + name, "state") == "clean" for name in names))
    seq = hub.last_seq()
    assert {name: m.stat("main/" + name) for name in names} == before
    reader.tell()
    for _ in names:
        reader.expect("True")
    reader.expect(str([before[name].size for name in names]))
    reader.finish()
    m.sh("ls -lR main; cat main/*.txt main/d/w.bin main/edited.bin > /dev/null")
    assert m.xattr("main/d/w.bin", "commit") == repo.head()
    assert hub.requests(since=seq, origin="data") == []
    m.unmount()
    m.restart()
    assert m.read("main/d/w.bin") == noise(3 * MIB)
    assert m.read("main/edited.bin") == old[:1000] + b"edit" + old[1004:]
    assert {name: m.stat("main/" + name).mtime for name in names} == {name: stat.mtime for name, stat in before.items()}
    assert hub.requests(since=seq, origin="data") == []


def test_writes_during_a_commit_are_the_next_one(mount, box, hub):
    repo = box.repo({"a.txt": b"0", "gone.txt": b"gone", "old.txt": b"old"})
    m = mount(repo.uri, "commit_delay=0.5")
    fault = hub.fault("/commit/", method="POST", stall=True)
    seq = hub.last_seq()
    m.sh("echo first > main/a.txt; echo 1 > main/b.txt; echo 1 > main/c.txt")
    hub.wait_for(lambda items: [item for item in items if "/commit/" in item["path"]], since=seq)
    m.sh("cd main; echo second > a.txt; rm gone.txt c.txt; mv old.txt new.txt; mv b.txt b2.txt; echo third > d.txt")
    hub.clear_faults(fault)
    first, _ = repo.wait_published(2)
    assert repo.files(first) == {"a.txt": b"first\n", "b.txt": b"1\n", "c.txt": b"1\n", "gone.txt": b"gone",
                                 "old.txt": b"old"}
    assert repo.files() == {"a.txt": b"second\n", "b2.txt": b"1\n", "d.txt": b"third\n", "new.txt": b"old"}
    assert m.ls("main") == [".gitattributes", "a.txt", "b2.txt", "d.txt", "new.txt"]


def test_a_pull_request_can_be_written(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    hub.commit(repo.id, {"b.txt": b"b"}, create_pr=True)
    repo.mark("refs/pr/1")
    m = mount(repo.uri, "commit_delay=0.3")
    m.write("refs/pr/1/c.bin", noise(MIB))
    repo.wait_published(1, "refs/pr/1")
    assert repo.paths("refs/pr/1") == ["a.txt", "b.txt", "c.bin"]
    assert repo.published() == []


def test_a_dataset_can_be_written(mount, box):
    repo = box.repo({"a.csv": b"a"}, type="dataset")
    m = mount("hf://", "commit_delay=0.3")
    m.sh(f"echo 1,2 > datasets/{repo.id}/b.csv; head -c 1500000 /dev/zero > datasets/{repo.id}@/main/c.parquet")
    repo.wait_published()
    assert repo.files() == {"a.csv": b"a", "b.csv": b"1,2\n", "c.parquet": bytes(1500000)}


def test_a_commit_that_would_leave_nothing_is_held(mount, box):
    repo = box.repo({"a.txt": b"a", "d/b.txt": b"b"})
    m = mount(repo.uri, "commit_delay=0.2")
    box.expect(r"(warn|err) ")
    m.sh("rm -rf main/a.txt main/d")
    time.sleep(4)
    assert repo.published() == []
    assert m.outcome("os.fsync(os.open('main', os.O_RDONLY))") == "EPERM"
    box.hugfs("commit", m.path("main"))
    assert repo.paths() == []
