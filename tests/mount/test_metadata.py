"""Modes, times, owners and empty folders: what the Hub cannot keep holds here, over commits and remounts, until the
content changes on the Hub. So that cp -p, rsync -a, tar, make and programs that go by a folder's time behave.
"""

import os

import pytest

from harness import eventually

FILES = {"a.txt": b"one\n", "b/c.txt": b"see\n", "b/d/e.txt": b"eee\n", "b/d/w.bin": bytes(range(256)) * 100,
         "other/x": b"x", "other/y": b"y"}
THEN = 981173106  # 2001-02-03 04:05:06
SHOW = "find . -mindepth 1 -printf '%P %m %T@ %U:%G\\n' | sort"


def show(mount, path="main"):
    """{path: "mode mtime owner"} of all that is below a folder."""
    lines = mount.sh(f"cd {path}; {SHOW}").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def drop_caches(mount):
    """The kernel forgets names and attributes, and hugfs the inodes."""
    if mount.box.account.is_root:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("2")


def everywhere(mount, box, check, path="main"):
    """`check` holds now, when nothing is remembered, after a commit, and after two remounts."""
    check()
    drop_caches(mount)
    check()
    box.hugfs("commit", mount.path(path))
    check()
    drop_caches(mount)
    check()
    for _ in range(2):
        mount.unmount()
        mount.restart()
        check()


def idle(mount):
    """Wait until the mount has given its branches back: then another may write there."""
    return eventually(lambda: "journal" not in "".join(os.listdir(f"/proc/{mount.process.pid}/fd")) and not any(
        os.readlink(f"/proc/{mount.process.pid}/fd/{fd}").endswith("/lock")
        for fd in os.listdir(f"/proc/{mount.process.pid}/fd")
        if os.path.lexists(f"/proc/{mount.process.pid}/fd/{fd}")), what="the branch to be given back")


@pytest.mark.parametrize("commit", ["commit=manual", "commit=close"])
def test_modes_and_times_of_files_and_folders(mount, box, commit):
    m = mount(box.repo(FILES).uri, commit, "commit_delay=60")
    m.sh("""cd main
        mkdir -m 700 private; echo 1 > private/f; (umask 077; echo 2 > secret; mkdir deep; echo 3 > deep/f)
        install -m 751 /dev/null script; chmod 640 a.txt; chmod 711 b b/d; chmod 2770 other
        touch -d '2001-02-03 04:05:06' a.txt b/c.txt private script b/d
        """)
    before = show(m)
    assert before["private"].startswith(f"700 {THEN}.0") and before["secret"].startswith("600 ")
    assert before["deep"].startswith("700 ") and before["script"].startswith(f"751 {THEN}.0")
    assert before["b/d"].startswith(f"711 {THEN}.0") and before["b"].startswith("711 ")
    assert before["other"].startswith("2770 ") and before["b/c.txt"].split()[1].startswith(f"{THEN}.0")

    def same():
        assert show(m) == before
    everywhere(m, box, same)


def test_they_hold_when_the_branch_is_given_back(mount, box):
    """A mount with nothing staged lets go of the branch, and goes on showing what was told."""
    m = mount(box.repo(FILES).uri, "commit=manual")
    m.sh("cd main; chmod 600 a.txt; chmod 700 b; touch -d '2001-02-03 04:05:06' b/d b/d/e.txt")
    before = show(m)
    idle(m)
    drop_caches(m)
    assert show(m) == before
    m.unmount()
    m.restart()
    idle(m)
    drop_caches(m)
    assert show(m) == before
    m.sh("chmod 755 main/b")  # and takes it again
    assert show(m)["b"].startswith("755 ") and show(m)["b/d"] == before["b/d"]


def test_below_renamed_folders(mount, box):
    m = mount(box.repo(FILES).uri, "commit=manual")
    m.sh("""cd main; chmod 600 b/c.txt b/d/e.txt; chmod 700 b/d other; touch -d '2001-02-03 04:05:06' b/d b/d/e.txt
        mv b moved; mv other b; chmod 640 moved/d/w.bin; mv moved/d/e.txt moved/d/f.txt""")
    before = show(m)
    assert before["moved/c.txt"].startswith("600 ") and before["moved/d"].startswith("700 ")
    assert before["moved/d/f.txt"].startswith(f"600 {THEN}.0") and before["b"].startswith("700 ")
    assert before["moved/d/w.bin"].startswith("640 ")

    def same():
        assert show(m) == before
    everywhere(m, box, same)


def test_a_push_takes_back_what_was_told(mount, box):
    repo = box.repo(FILES)
    m = mount(repo.uri, "commit=manual", "poll=1")
    m.sh("cd main; chmod 600 a.txt b/c.txt; chmod 700 b other; touch -d '2001-02-03 04:05:06' a.txt other")
    before = show(m)
    repo.push({"a.txt": b"another\n", "b/new": b"new\n"})
    eventually(lambda: m.exists("main/b/new"), what="the push")
    assert m.stat("main/a.txt").mode & 0o777 == 0o644 and m.stat("main/a.txt").mtime > THEN
    assert m.stat("main/b").mode & 0o777 == 0o755
    assert {name: told for name, told in show(m).items() if name in ("b/c.txt", "other")} == {
        name: before[name] for name in ("b/c.txt", "other")}
    m.unmount()
    m.restart()
    assert m.stat("main/b").mode & 0o777 == 0o755 and m.stat("main/other").mode & 0o777 == 0o700


def test_owners_as_far_as_the_mounter_may(root_box):
    m = root_box.mount(root_box.repo(FILES).uri, "commit=manual")
    m.sh("cd main; echo 1 > n; chown 12:34 n a.txt b; chgrp 7 b/c.txt")
    assert [(m.stat("main/" + name).uid, m.stat("main/" + name).gid) for name in ("n", "a.txt", "b", "b/c.txt")] == [
        (12, 34), (12, 34), (12, 34), (0, 7)]
    before = show(m)

    def same():
        assert show(m) == before
    everywhere(m, root_box, same)


def test_a_folders_time_moves_with_its_names(mount, box):
    m = mount(box.repo(FILES).uri, "commit=manual")

    def moved(script, *folders, still=()):
        before = {name: m.stat("main/" + name).mtime for name in (*folders, *still)}
        m.sh("cd main; " + script)
        for name in folders:
            assert m.stat("main/" + name).mtime > before[name], (script, name)
        for name in still:
            assert m.stat("main/" + name).mtime == before[name], (script, name)

    moved("echo 1 > b/new", "b", still=["b/d", "other", ""])
    moved("echo 2 >> b/new; chmod 600 b/c.txt; cat b/c.txt", still=["b", "b/d", ""])
    moved("mv b/new b/d", "b", "b/d", still=["other", ""])
    moved("rm b/d/new", "b/d", still=["b"])
    moved("mkdir b/sub", "b", still=[""])
    moved("mv b/sub b/d/sub; rmdir b/d/sub", "b", "b/d")
    moved("mv b b2", "", still=["other"])


def test_rotating_checkpoints_by_the_time_of_folders(mount, box):
    """What trainers do: keep the newest two, by mtime, over commits and a remount."""
    m = mount(box.repo().uri, "commit=manual")
    rotate = """
        import shutil
        def save(step):
            os.makedirs(f'main/checkpoint-{step}')
            for name in ('model.bin', 'optimizer.bin'):
                with open(f'main/checkpoint-{step}/{name}', 'wb') as file:
                    file.write(b'%d' % step * 1000)
            have = sorted((e.stat().st_mtime, e.name) for e in os.scandir('main') if e.name.startswith('checkpoint-'))
            for _, old in have[:-2]:
                shutil.rmtree('main/' + old)
        save(int(sys.argv[1]))
        """
    for step in (30, 4, 100, 20, 5):  # neither by name nor by number
        m.py(rotate, str(step))
        box.hugfs("commit", m.path("main"))
        if step == 100:
            m.unmount()
            m.restart()
    assert m.ls("main") == [".gitattributes", "checkpoint-20", "checkpoint-5"] or m.ls("main") == [
        "checkpoint-20", "checkpoint-5"]


def test_empty_folders_stay(mount, box):
    m = mount(box.repo(FILES).uri, "commit=manual")
    m.sh("cd main; mkdir -p none/within; rm b/d/e.txt b/d/w.bin other/x other/y")
    folders = "cd main; find . -type d | sort"
    before = m.sh(folders)
    assert before.split() == [".", "./b", "./b/d", "./none", "./none/within", "./other"]

    def same():
        assert m.sh(folders) == before
    everywhere(m, box, same)


def test_a_folder_that_lost_all_below_it_stays(mount, box):
    """The file goes, is published, then the folder that held it: the one above is empty, not gone."""
    m = mount(box.repo({"a/c/f": b"1", "k": b"2", "p/q/r/s": b"3"}).uri, "commit=manual")
    m.sh("cd main; rm a/c/f p/q/r/s")
    box.hugfs("commit", m.path("main"))
    m.sh("cd main; rmdir a/c; mv p/q/r p/r2; rmdir p/q")
    folders = "cd main; find . -type d | sort"
    assert m.sh(folders).split() == [".", "./a", "./p", "./p/r2"]

    def same():
        assert m.sh(folders).split() == [".", "./a", "./p", "./p/r2"]
    same()
    m.unmount()
    m.restart()
    same()
    m.sh("cd main; rmdir a p/r2 p")
    assert m.sh(folders).split() == ["."]


def test_a_deletion_that_leaves_others_keeps_nothing_staged(mount, box):
    """After the commit the branch is given back: the folder is the Hub's again, and goes when a push takes it."""
    repo = box.repo(FILES)
    m = mount(repo.uri, "commit=manual", "poll=1")
    m.sh("rm main/other/x")
    box.hugfs("commit", m.path("main"))
    idle(m)
    repo.push({"other/y": None})
    eventually(lambda: not m.exists("main/other"), what="the folder to go with the push")


def test_a_commit_changes_no_time_of_other_files(mount, box):
    """Nor does a remount after it: make and rsync go by them."""
    repo = box.repo(FILES)
    m = mount(repo.uri, "commit=manual")
    before = show(m)
    for n in range(2):
        m.sh(f"sleep 1.1; echo {n} > main/new{n}")  # commits have whole seconds
        box.hugfs("commit", m.path("main"))
        drop_caches(m)
        now = show(m)
        assert {name: now[name] for name in before} == before
    m.unmount()
    m.restart()
    now = show(m)
    assert {name: now[name] for name in before} == before


def test_make_rebuilds_only_what_is_older(mount, box):
    repo = box.repo({"in.txt": b"1\n", "Makefile": b"out.txt: in.txt\n\tcp in.txt out.txt\n"})
    m = mount(repo.uri, "commit=manual")
    assert "cp in.txt" in m.sh("cd main; make")
    for _ in range(2):
        assert "up to date" in m.sh("cd main; make")
        box.hugfs("commit", m.path("main"))
        assert "up to date" in m.sh("cd main; make")
        m.unmount()
        m.restart()
    m.sh("sleep 0.01; echo 2 >> main/in.txt")
    assert "cp in.txt" in m.sh("cd main; make")


def test_rsync_and_tar_keep_everything(mount, box):
    source = box.folder("source")
    box.run(["sh", "-euc", """cd "$0"; mkdir -p deep/er empty; echo 1 > deep/f; echo 2 > deep/er/g; chmod 750 deep
        chmod 600 deep/f; echo run > run.sh; chmod 755 run.sh; chmod 2755 empty
        touch -d '2001-02-03 04:05:06' deep/f deep/er/g deep/er deep empty run.sh""", source])
    m = mount(box.repo(FILES).uri, "commit=manual")
    again = ["rsync", "-a", "--itemize-changes", "--delete", source + "/", m.path("main/synced/")]
    m.sh(f"cp -a {source} main/copied; mkdir main/untarred; tar -C {source} -cf - . | tar -C main/untarred -xpf -")
    box.run(again)
    plain = box.run(["sh", "-euc", f'cd "$0"; {SHOW}', source]).out

    def same():
        assert box.run(again).out == ""
        for folder in ("synced", "copied", "untarred"):
            assert m.sh(f"cd main/{folder}; {SHOW}") == plain, folder
    everywhere(m, box, same)


def test_a_folder_is_read_anew_from_its_beginning(mount, box):
    """rewinddir shows what came since opendir."""
    m = mount(box.repo(FILES).uri, "commit=manual")
    out = m.py("""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir.restype = ctypes.c_void_p
        libc.readdir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
        def names(at):
            found = []
            while entry := libc.readdir(at):
                found.append(ctypes.string_at(entry + 19).decode())
            return sorted(name for name in found if name[0] != '.')
        at = libc.opendir(b'main/other')
        print(*names(at))
        open('main/other/new', 'w').close()
        os.unlink('main/other/x')
        print(*names(at))
        libc.rewinddir(at)
        print(*names(at))
        """)
    assert out.splitlines() == ["x y", "", "new y"]
