"""Changes behave as on a local disk and are published as they look there: every script runs in the mount and in a
plain folder, the two must be equal, and so must what git holds after one `hugfs commit`."""

import random
import textwrap

import pytest

import harness

MIB = 1 << 20
WEIGHTS = random.Random(7).randbytes(3 * MIB)
FILES = {
    "a.txt": b"one\ntwo\nthree\n",
    "b/c.txt": b"see\n",
    "b/d/e.txt": b"eee\n",
    "b/d/w2.bin": WEIGHTS[:MIB + 5],
    "empty.txt": b"",
    "w.bin": WEIGHTS,
    "old name ☃.txt": b"snow\n",
}


def tree(box, path):
    """(files with bytes, folders) below a path, as the box's user sees them."""
    folders = box.run(["find", path, "-mindepth", "1", "-type", "d", "-printf", "%P\\0"]).out.split("\0")[:-1]
    files = harness.files_below(box, path)
    return {name: data for name, data in files.items() if name != ".gitattributes"}, sorted(folders)


class Both:
    """A branch in a mount that publishes only on demand, and a plain folder with the same files."""

    def __init__(self, box):
        self.box = box
        self.repo = box.repo(FILES)
        self.mount = box.mount(self.repo.uri, "commit=manual")
        self.branch = self.mount.path("main")
        self.plain = box.folder("plain")
        for name, data in FILES.items():
            box.run(["sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', f"{self.plain}/{name}"], stdin=data)

    def run(self, argv, **options):
        """Run it in both; they must end and print alike, and leave equal trees."""
        results = []
        for folder in (self.plain, self.branch):
            done = self.box.run(["sh", "-c", 'cd "$0" && exec "$@"', folder, *argv], check=False, env={"HERE": folder},
                                **options)
            results.append((done.status, done.out))
        assert results[0] == results[1], f"plain: {results[0]}, mount: {results[1]}"
        assert results[0][0] == 0, results[0]
        assert tree(self.box, self.branch) == tree(self.box, self.plain)

    def sh(self, script, **options):
        self.run(["sh", "-euc", script], **options)

    def py(self, code, **options):
        prelude = harness.PRELUDE.replace('os.environ["MNT"]', '"."')
        self.run([harness.PYTHON, "-c", prelude + textwrap.dedent(code)], **options)

    def commit(self):
        """Publish, and compare git, the mount, and the mount after a remount with the plain folder."""
        before = tree(self.box, self.plain)
        self.box.hugfs("commit", self.branch)
        assert len(self.repo.published()) == 1
        assert self.repo.files() == before[0]
        files, folders = tree(self.box, self.branch)
        assert (files, folders) == before
        self.mount.unmount()
        self.mount.restart()
        files, folders = tree(self.box, self.branch)
        assert files == before[0]


@pytest.fixture
def both(box):
    return Both(box)


SCRIPTS = {
    "create": "echo hello > new.txt; printf x > b/x; : > b/d/nothing",
    "nested folders": "mkdir -p x/y/z; echo 1 > x/y/z/f; mkdir -p b/new/er; echo 2 > b/new/er/g",
    "append": "echo more >> a.txt; printf tail >> w.bin; echo first >> appended.txt; echo second >> appended.txt",
    "write in the middle": "printf XYZ | dd of=w.bin bs=1 seek=1500000 conv=notrunc status=none;"
                           "printf T | dd of=a.txt bs=1 seek=4 conv=notrunc status=none",
    "write past the end": "printf far | dd of=a.txt bs=1 seek=100000 conv=notrunc status=none;"
                          "printf far | dd of=w.bin bs=1 seek=5000000 conv=notrunc status=none",
    "truncate": "truncate -s 100 w.bin; truncate -s 5 a.txt; truncate -s 0 b/c.txt; truncate -s 77 empty.txt",
    "grow": "truncate -s 4000000 w.bin; truncate -s 300 a.txt",
    "shrink and grow": "truncate -s 1000 w.bin; truncate -s 2000000 w.bin; tail -c 5 w.bin | od -c",
    "rename files": "mv a.txt z.txt; mv w.bin b/d/moved.bin; mv 'old name ☃.txt' 'new name #?%.txt'",
    "rename over": "mv b/c.txt a.txt; mv b/d/w2.bin w.bin; echo new > n; mv n b/d/e.txt",
    "rename folder": "mv b moved; echo more >> moved/c.txt; mv moved/d top; echo 1 > top/new; rm top/e.txt",
    "rename there and back": "mv b t; mv t b; mv a.txt x; mv x a.txt; touch changed",
    "rename into new folder": "mkdir -p q/r; mv b q/r/b; mv w.bin q; echo x > q/r/b/d/x",
    "swap": "mv a.txt t; mv b/c.txt a.txt; mv t b/c.txt; mv b/d t; mkdir b/d; mv t b/d/inner",
    "chain of renames": "mv w.bin v1.bin; mv v1.bin v2.bin; printf end >> v2.bin; mv v2.bin w.bin",
    "rename over empty folder": "mkdir none; mv -T b none; mkdir b; echo x > b/y",
    "no replace": "mv -n a.txt b/c.txt; mv -n a.txt fresh.txt; cat b/c.txt",
    "remove": "rm a.txt b/d/w2.bin; rm -r b; rm -f nothing",
    "remove and make again": "rm a.txt; echo again > a.txt; rm -r b; mkdir b; echo back > b/c.txt",
    "folder for file": "rm -r b; echo now a file > b; rm a.txt; mkdir a.txt; echo x > a.txt/y",
    "empty a folder": "rm b/d/*; rmdir b/d; ! rmdir b; rm b/c.txt; rmdir b; echo x > x",
    "copy tree": "cp -r b copy; cp -a b kept; cp w.bin w3.bin; cp w.bin b/c.txt",
    "redirections": "cat a.txt w.bin > all.bin; { echo 1; sh -c 'echo 2'; echo 3; } > out; sort -r -o a.txt a.txt;"
                    "(echo a; echo b) | tee t1 t2 >/dev/null;"
                    "exec 5> held; echo x >&5; cat held; echo y >&5; exec 5>&-",
    "sed -i": "sed -i s/two/2/ a.txt; sed -i.bak s/see/saw/ b/c.txt; rm b/c.txt.bak",
    "a longer file": "seq 1 900000 > numbers.txt; tail -n 3 numbers.txt; wc -c numbers.txt",
    "long name": "n=$(printf 'n%.0s' $(seq 255)); echo x > $n; ! echo x > ${n}n; cat $n",
    "vim": "vim -es -u NONE -N -c '%s/two/2/' -c wq a.txt;"
           "vim -es -u NONE -N -c 'set backupcopy=no' -c 'norm Gox' -c wq b/c.txt;"
           "vim -es -u NONE -N -c 'set backupcopy=yes backup backupskip=' -c 'norm ggOx' -c wq b/d/e.txt;"
           "rm b/d/e.txt~; cat a.txt",
    "emacs": "cp a.txt '#a.txt#'; echo typed >> '#a.txt#'; mv a.txt a.txt~; cp '#a.txt#' a.txt; rm '#a.txt#' a.txt~",
    "gedit": "cp a.txt .goutputstream-ABC; echo typed >> .goutputstream-ABC; mv .goutputstream-ABC a.txt",
    "many files": "mkdir many; for i in $(seq 150); do echo $i > many/$i.txt; done; rm many/7.txt;"
                  "mv many/8.txt many/7.txt",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(both, name):
    both.sh(SCRIPTS[name])
    both.commit()


@pytest.fixture
def source(box):
    """A folder outside of the mount, with times, modes and nesting."""
    folder = box.folder("source")
    box.run(["sh", "-euc", """cd "$0"
        mkdir -p deep/er empty; seq 1 5000 > deep/numbers.txt; head -c 2000000 /dev/zero > deep/er/zeros.bin
        echo run > run.sh; chmod 755 run.sh; touch -d 2001-02-03T04:05:06 deep/numbers.txt; echo hidden > .hidden
        """, folder])
    return folder


def test_cp_rsync_and_tar(both, source):
    both.sh(f"cp -a {source} copied; cp -r {source}/. flat; rsync -a {source}/ synced; rsync -a {source}/ synced;"
            f"rsync -a --inplace {source}/deep/ b; tar -C {source} -cf - . | (mkdir untarred; tar -C untarred -xf -)")
    both.commit()


def test_rsync_sees_that_nothing_changed(both, source, hub):
    both.sh(f"rsync -a {source}/ synced")
    both.commit()
    out = both.box.run(["rsync", "-a", "--itemize-changes", source + "/", both.mount.path("main/synced/")]).out
    assert [line for line in out.splitlines() if not line.startswith((".d..t", "cd++"))] == []


def test_rsync_delete(both, source):
    both.sh(f"rsync -a --delete {source}/ b")
    both.commit()


def test_a_file_replaced_while_its_descriptor_is_open(both):
    both.py("""
        out = open('.tmpABC', 'wb')
        out.write(b'first ' * 1000)
        out.flush()
        os.rename('.tmpABC', 'w.bin')
        out.write(b'second')
        out.close()
        print(open('w.bin', 'rb').read()[-6:])
        """)
    both.commit()


def test_an_open_file_survives_its_name(both):
    both.py("""
        reader = open('w.bin', 'rb')
        writer = open('a.txt', 'r+')
        os.unlink('w.bin')
        os.unlink('a.txt')
        writer.write('ONE')
        writer.flush()
        writer.seek(0)
        print(writer.read(), os.fstat(writer.fileno()).st_nlink, len(reader.read()))
        open('a.txt', 'w').write('another')
        writer.close()
        """)
    both.commit()


def test_a_reader_keeps_what_was_replaced(both):
    both.py("""
        reader = open('w.bin', 'rb')
        first = reader.read(10)
        open('new', 'wb').write(b'replacement')
        os.replace('new', 'w.bin')
        print(first + reader.read() == first + reader.read() or True, open('w.bin', 'rb').read())
        reader.seek(0)
        print(len(reader.read()))
        """)
    both.commit()


def test_several_handles_of_one_file(both):
    both.py("""
        one, two = open('a.txt', 'r+b', 0), open('a.txt', 'r+b', 0)
        one.write(b'1111')
        two.seek(4)
        two.write(b'2222')
        print(os.pread(one.fileno(), 20, 0), os.fstat(two.fileno()).st_size)
        log = open('log', 'ab', 0), open('log', 'ab', 0)
        for n in range(20):
            log[n % 2].write(b'%d\\n' % n)
        """)
    both.commit()


def test_writing_through_a_mapping(both):
    both.py("""
        with open('w.bin', 'r+b') as file, mmap.mmap(file.fileno(), 0) as view:
            view[1000000:1000005] = b'mmap!'
            view[:1] = b'M'
            view.flush()
        with open('fresh.bin', 'w+b') as file:
            file.truncate(100000)
            with mmap.mmap(file.fileno(), 0) as view:
                view[99999:] = b'e'
        """)
    both.commit()


def test_exclusive_and_other_ways_to_open(both):
    both.py("""
        print(outcome(lambda: open('a.txt', 'x')), outcome(lambda: os.open('b', os.O_WRONLY)),
              outcome(lambda: os.open('a.txt', os.O_RDONLY | os.O_DIRECTORY)), outcome(lambda: open('no/such', 'w')))
        print(outcome(lambda: os.mkdir('b')), outcome(lambda: os.rmdir('b')),
              outcome(lambda: os.unlink('b')) in ('EISDIR', 'EPERM'),
              outcome(lambda: os.rmdir('a.txt')), outcome(lambda: os.rename('b', 'b/d/inside')),
              outcome(lambda: os.rename('a.txt', 'b')), outcome(lambda: os.rename('b', 'a.txt')),
              outcome(lambda: os.rename('nothing', 'x')), outcome(lambda: os.open('a' * 256, os.O_CREAT | os.O_WRONLY)))
        fd = os.open('x.txt', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.pwrite(fd, b'at ten', 10)
        os.ftruncate(fd, 13)
        print(os.pread(fd, 100, 0), os.lseek(fd, 0, os.SEEK_END))
        """)
    both.commit()


def test_many_writers_at_once(both):
    both.py("""
        import subprocess
        script = 'mkdir -p p$0; for i in $(seq 25); do echo $0.$i > p$0/$i.txt; echo $0.$i >> p$0/all; done'
        running = [subprocess.Popen(['sh', '-ec', script, str(n)]) for n in range(6)]
        print([process.wait() for process in running])
        """)
    both.commit()


def test_random_edits_of_a_committed_file(both):
    both.py("""
        import random
        dice = random.Random(4)
        with open('w.bin', 'r+b', 0) as file:
            for _ in range(300):
                at = dice.randrange(3 << 20)
                if dice.random() < 0.03:
                    file.truncate(at)
                os.pwrite(file.fileno(), dice.randbytes(dice.randrange(1, 20000)), at)
                if dice.random() < 0.2:
                    os.pread(file.fileno(), 5000, dice.randrange(3 << 20))
        """)
    both.commit()


def test_one_tree_after_many_commits(both):
    """Renames and edits on top of what was just published."""
    for step in ("mv b b2; echo 1 > b2/new", "mv b2/d d; printf x >> d/w2.bin", "rm -r b2; mv d b2; cp w.bin b2",
                 "mv b2/w.bin .; rmdir b2/none 2>/dev/null || true; mv b2 b"):
        both.sh(step)
        both.commit()
        both.repo.mark()


# What is not like a local disk

def test_links_and_nodes_are_refused(mount, box):
    m = mount(box.repo(FILES).uri, "commit=manual")
    assert m.outcome("os.link('main/a.txt', 'main/l')") == "EPERM"
    assert m.outcome("os.symlink('a.txt', 'main/l')") == "EPERM"
    assert m.outcome("os.mkfifo('main/l')") == "EPERM"
    assert "l" not in m.ls("main")


def test_times_and_modes_are_kept_locally(mount, box, hub):
    repo = box.repo(FILES)
    m = mount(repo.uri, "commit=manual")
    m.sh("""cd main
        echo new > n; touch -d '2001-02-03 04:05:06' n a.txt; chmod 755 n a.txt; chmod 600 w.bin; chown "$(id -u)" n
        """)
    for name in ("n", "a.txt"):
        assert (m.stat("main/" + name).mtime, m.stat("main/" + name).mode & 0o777) == (981173106, 0o755)
    assert m.stat("main/w.bin").mode & 0o777 == 0o600
    box.hugfs("commit", m.path("main"))
    assert repo.changes(repo.head()) == {"n": "A"}
    assert m.stat("main/n").mtime == 981173106
    m.unmount()
    m.restart()
    assert m.stat("main/n").mtime == m.stat("main/a.txt").mtime == 981173106


def test_a_rename_to_another_branch_is_exdev_and_mv_copies(mount, box, hub):
    repo = box.repo(FILES)
    hub.branch(repo.id, "dev")
    m = mount(repo.uri, "commit=manual")
    assert m.outcome("os.rename('main/a.txt', 'dev/x')") == "EXDEV"
    m.sh("mv main/a.txt dev/x; mv main/b dev/b2")
    assert m.read("dev/x") == FILES["a.txt"] and m.read("dev/b2/d/e.txt") == b"eee\n"
    assert "a.txt" not in m.ls("main") and "b" not in m.ls("main")


def test_editing_downloads_nothing(mount, box, hub):
    """An in-place edit stages only what changed; reading back fetches only what is needed."""
    repo = box.repo({"w.bin": WEIGHTS})
    m = mount(repo.uri, "commit=manual")
    m.stat("main/w.bin")
    seq = hub.last_seq()
    m.py("""
        with open('main/w.bin', 'r+b', 0) as file:
            os.pwrite(file.fileno(), b'edited', 2 << 20)
        with open('main/w.bin', 'ab', 0) as file:
            file.write(b'end')
        """)
    assert hub.requests(since=seq, origin="data") == []
    assert m.py("print(os.pread(os.open('main/w.bin', os.O_RDONLY), 4, (2 << 20) + 1))").strip() == "b'dite'"
    assert sum(item["sent"] for item in hub.requests(since=seq, origin="data")) <= MIB
    assert m.read("main/w.bin") == WEIGHTS[:2 * MIB] + b"edited" + WEIGHTS[2 * MIB + 6:] + b"end"
    box.hugfs("commit", m.path("main"))
    assert repo.content("w.bin") == WEIGHTS[:2 * MIB] + b"edited" + WEIGHTS[2 * MIB + 6:] + b"end"


def test_overwriting_downloads_nothing(mount, box, hub):
    repo = box.repo({"w.bin": WEIGHTS, "v.bin": WEIGHTS[::-1]})
    m = mount(repo.uri, "commit=manual")
    m.stat("main/w.bin")
    seq = hub.last_seq()
    m.write("main/w.bin", WEIGHTS[:MIB] * 2)
    m.py("os.truncate('main/v.bin', 0)")
    box.hugfs("commit", m.path("main"))
    assert [item for item in hub.requests(since=seq, origin="data") if item["method"] == "GET"] == []
    assert repo.files() == {"w.bin": WEIGHTS[:MIB] * 2, "v.bin": b""}


def test_every_rewrite_raises_mtime(mount, box):
    m = mount(box.repo(FILES).uri, "commit=manual")
    before = m.stat("main/a.txt").mtime
    m.write("main/a.txt", b"1")
    between = m.stat("main/a.txt").mtime
    m.write("main/a.txt", b"2")
    assert before < between < m.stat("main/a.txt").mtime


def test_staging_on_a_full_disk_is_enospc(mount, box):
    """The staging area on a small file system of its own."""
    repo = box.repo(FILES)
    small = box.folder("small")
    box.run(["mount", "-t", "tmpfs", "-o", f"size=3m,mode=700,uid={box.account.uid},gid={box.account.gid}", "tmpfs",
             small], as_root=True)
    try:
        m = mount(repo.uri, "commit=manual", "staging_dir=" + small)
        m.write("main/small.txt", b"fits")
        box.expect(r"(err|warn) ")
        assert m.outcome("[os.write(os.open('main/big.bin', os.O_CREAT | os.O_WRONLY | os.O_APPEND), bytes(1 << 20))"
                         " for _ in range(9)]") == "ENOSPC"
        assert m.read("main/small.txt") == b"fits"
        m.unmount()
    finally:
        box.run(["umount", "-l", small], as_root=True)
