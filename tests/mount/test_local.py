"""Staged files are files as on a local disk: room and holes, copies by the kernel, locks, syncs, mappings, names that move under
open files. Most of it is done to a plain folder too, and must come out the same.
"""

import hashlib
import os
import textwrap

import pytest

from harness import eventually
from test_write import Both, FILES, MIB, WEIGHTS

FALLOCATE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def fallocate(fd, mode, off, length):
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(length)) < 0:
        raise OSError(ctypes.get_errno(), 'fallocate')
KEEP, PUNCH, ZERO, COLLAPSE, INSERT = 1, 2, 16, 8, 32
def show(path):
    data = open(path, 'rb').read()
    print(path, len(data), __import__('hashlib').sha256(data).hexdigest())
"""


@pytest.fixture
def both(box):
    return Both(box)


def test_fallocate(both):
    both.py(FALLOCATE + textwrap.dedent("""
        for path in ('new.bin', 'w.bin', 'a.txt', 'empty.txt'):
            fd = os.open(path, os.O_CREAT | os.O_WRONLY)  # what it writes it need not read
            os.posix_fallocate(fd, 0, 5000)
            os.posix_fallocate(fd, 100000, 5000)
            print(os.fstat(fd).st_size)
            os.pwrite(fd, b'x' * 3000, 4000)
            fallocate(fd, KEEP, 50000, 9000000)
            fallocate(fd, PUNCH | KEEP, 4100, 2000)
            fallocate(fd, PUNCH | KEEP, 100, 50)
            fallocate(fd, PUNCH | KEEP, 1 << 40, 4096)
            fallocate(fd, ZERO, 3000, 1500)
            fallocate(fd, ZERO, 104000, 3000)
            fallocate(fd, ZERO | KEEP, 106000, 70000)
            print(os.fstat(fd).st_size)
            os.close(fd)
            show(path)
        print(outcome(os.posix_fallocate, os.open('a.txt', os.O_RDONLY), 0, 1))
        print(outcome(os.posix_fallocate, os.open('a.txt', os.O_RDWR), 0, 0))
        """))
    both.commit()


def test_what_shifts_bytes_is_refused_cleanly(mount, box):
    m = mount(box.repo({"a.txt": b"x" * 20000}).uri, "commit=manual")
    assert m.py(FALLOCATE + textwrap.dedent("""
        fd = os.open('main/a.txt', os.O_RDWR)
        print(outcome(fallocate, fd, COLLAPSE, 0, 4096), outcome(fallocate, fd, INSERT, 0, 4096))
        print(os.fstat(fd).st_size)
        """)).split() == ["ENOTSUP", "ENOTSUP", "20000"]


def test_holes_are_found(mount, box):
    """What was never written is a hole; what the Hub has is data."""
    m = mount(box.repo({"w.bin": WEIGHTS}).uri, "commit=manual")
    assert m.py("""
        def map_of(path):
            fd = os.open(path, os.O_RDONLY)
            size, at, found = os.fstat(fd).st_size, 0, []
            while at < size:
                try:
                    begin = os.lseek(fd, at, os.SEEK_DATA)
                except OSError as error:
                    assert error.errno == errno.ENXIO
                    break
                at = os.lseek(fd, begin, os.SEEK_HOLE)
                found.append((begin, at))
            return found, size
        print(map_of('main/w.bin'), outcome(os.lseek, os.open('main/w.bin', os.O_RDONLY), 1 << 40, os.SEEK_DATA))
        with open('main/sparse', 'wb') as file:
            file.truncate(64 << 20)
            os.pwrite(file.fileno(), b'x' * 4096, 16 << 20)
            os.pwrite(file.fileno(), b'x' * 4096, 48 << 20)
        print(map_of('main/sparse'))
        with open('main/w.bin', 'r+b') as file:
            file.truncate(8 << 20)
            os.pwrite(file.fileno(), b'x' * 4096, 6 << 20)
        print(map_of('main/w.bin'))
        """).splitlines() == [
            f"([(0, {len(WEIGHTS)})], {len(WEIGHTS)}) ENXIO",
            f"([({16 * MIB}, {16 * MIB + 4096}), ({48 * MIB}, {48 * MIB + 4096})], {64 * MIB})",
            f"([(0, {(len(WEIGHTS) + 4095) // 4096 * 4096}), ({6 * MIB}, {6 * MIB + 4096})], {8 * MIB})"]
    out = m.sh("cp --sparse=always main/sparse main/copy; cmp main/sparse main/copy; tar -C main -Scf - sparse | wc -c")
    assert int(out) < MIB


# Copies by the kernel

def data_gets(hub, seq):
    return [item for item in hub.requests(since=seq, origin="data") if item["method"] == "GET"]


@pytest.mark.parametrize("copy", ["cp {} {}", "cp --reflink=auto -p {} {}", "cp --sparse=never {} {}"])
def test_cp_of_a_committed_file_moves_no_bytes(mount, box, hub, copy):
    repo = box.repo({"w.bin": WEIGHTS, "old.bin": b"old", "other/w.bin": WEIGHTS[::-1]})
    m = mount(repo.uri, "commit=manual")
    m.stat("main/w.bin")
    seq = hub.last_seq()
    m.sh("cd main; " + "; ".join(copy.format(a, b) for a, b in (
        ("w.bin", "copy.bin"), ("other/w.bin", "old.bin"), ("copy.bin", "again.bin"))))
    assert data_gets(hub, seq) == []
    box.hugfs("commit", m.path("main"))
    assert data_gets(hub, seq) == [] and hub.requests(since=seq, origin="data") == []
    assert repo.changes(repo.published()[0]) == {"copy.bin": "A", "old.bin": "M", "again.bin": "A"}
    files = repo.files()
    assert files["copy.bin"] == files["again.bin"] == WEIGHTS and files["old.bin"] == WEIGHTS[::-1]
    assert m.read("main/again.bin") == WEIGHTS


def test_copies_in_many_calls_and_parts(both, box):
    """cp sends several calls for one file; other programs copy ranges, also within one file."""
    both.py("""
        def copy(src, dst, step, soff=0, doff=0, length=None):
            n = 0
            while length is None or n < length:
                want = step if length is None else min(step, length - n)
                done = os.copy_file_range(src, dst, want, soff + n, doff + n)
                if done == 0:
                    break
                n += done
            return n
        w = os.open('w.bin', os.O_RDONLY)
        out = os.open('steps', os.O_CREAT | os.O_RDWR)
        print(copy(w, out, 300000))
        out = os.open('part', os.O_CREAT | os.O_RDWR)
        print(copy(w, out, 65536, 0, 0, 1000000), copy(w, out, 70000, 500, 2000000, 100000))
        os.pwrite(out, b'between', 999990)
        out = os.open('then written', os.O_CREAT | os.O_RDWR)
        print(copy(w, out, 1 << 20, 0, 0, 1 << 20), os.pwrite(out, b'tail', 1 << 20), os.pwrite(out, b'head', 0))
        print(copy(w, out, 4096, (1 << 20) + 4, (1 << 20) + 4, 8192))
        out = os.open('a.txt', os.O_RDWR)
        os.pwrite(out, b'0123456789' * 1000, 0)
        print(copy(out, out, 3000, 0, 5000, 3000), os.pread(out, 20, 5000))
        staged = os.open('staged', os.O_CREAT | os.O_RDWR)
        os.write(staged, os.urandom(0) + bytes(range(256)) * 3000)
        out = os.open('of staged', os.O_CREAT | os.O_RDWR)
        print(copy(staged, out, 100000), copy(staged, out, 50000, 1000, 768000 + 77, 60000))
        print(outcome(os.copy_file_range, w, os.open('a.txt', os.O_RDONLY), 10))
        """)
    both.commit()


def test_a_copy_of_a_copy_that_is_written_later(both):
    both.sh("""cp w.bin one; cp one two; printf X | dd of=one bs=1 seek=1000000 conv=notrunc status=none
        cp one three; printf more >> two; cp w.bin a.txt; mv one w.bin; truncate -s 2000000 three; cp three empty.txt""")
    both.commit()


def test_a_copy_from_another_revision_of_the_repository(mount, box, hub):
    repo = box.repo({"w.bin": WEIGHTS, "small.txt": b"small\n"})
    hub.branch(repo.id, "dev")
    repo.push({"v.bin": WEIGHTS[::-1]}, rev="dev")
    m = mount(repo.uri, "commit=manual")
    m.sh("ls main dev")
    seq = hub.last_seq()
    m.sh("cp dev/v.bin main/v.bin; cp dev/small.txt main/s.txt; cp -r dev/w.bin main/w2.bin")
    assert data_gets(hub, seq) == []
    box.hugfs("commit", m.path("main"))
    assert repo.content("v.bin") == WEIGHTS[::-1] and repo.content("s.txt") == b"small\n"
    assert repo.content("w2.bin") == WEIGHTS
    assert [item for item in hub.requests(since=seq, origin="data") if item["method"] == "PUT"] == []


def test_a_copy_is_published_when_it_is_closed(mount, box):
    """Not before: the copy is whole, but its writer is there still."""
    repo = box.repo({"w.bin": WEIGHTS})
    m = mount(repo.uri, "commit=manual")
    child = m.start_py("""
        out = os.open('main/copy', os.O_CREAT | os.O_WRONLY)
        w = os.open('main/w.bin', os.O_RDONLY)
        while os.copy_file_range(w, out, 1 << 30):
            pass
        say('copied')
        hear()
        os.close(out)
        say('closed')
        hear()
        """)
    child.expect("copied")
    assert box.hugfs("commit", m.path("main"), check=False).status == 3
    assert "copy" not in repo.paths()
    child.tell()
    child.expect("closed")
    box.hugfs("commit", m.path("main"))
    assert repo.content("copy") == WEIGHTS
    child.tell()
    child.finish()


def test_equal_bytes_copied_over_are_no_change(mount, box):
    repo = box.repo({"w.bin": WEIGHTS})
    m = mount(repo.uri, "commit=manual")
    m.sh("cp main/w.bin main/w2.bin; cp main/w2.bin main/w.bin; rm main/w2.bin")
    box.hugfs("commit", m.path("main"))
    assert repo.published() == [] and m.read("main/w.bin") == WEIGHTS


def test_a_half_copy_is_interrupted_by_kill(mount, box):
    repo = box.repo({"w.bin": WEIGHTS, "old.bin": b"old"})
    m = mount(repo.uri, "commit=manual")
    child = m.start_py("""
        w = os.open('main/w.bin', os.O_RDONLY)
        for name in ('main/copy', 'main/old.bin'):
            out = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.copy_file_range(w, out, 1 << 20, 0, 0)
            os.copy_file_range(w, out, 1 << 20, 1 << 20, 1 << 20)
        say('half')
        hear()
        """)
    child.expect("half")
    box.expect("were open for writing")
    m.kill()
    child.close()
    m.restart()
    for name in ("copy", "old.bin"):
        assert m.xattr("main/" + name, "state") == "interrupted"
        assert m.read("main/" + name) == WEIGHTS[:2 * MIB]
    m.sh("cd main; printf end >> copy; cp w.bin old.bin")
    box.hugfs("commit", m.path("main"))
    assert repo.content("copy") == WEIGHTS[:2 * MIB] + b"end" and repo.content("old.bin") == WEIGHTS


def test_a_cut_is_no_close(mount, box):
    """A file whose writer goes on after ftruncate, or that was only emptied for a program that has not begun, is not closed."""
    repo = box.repo({"old.csv": b"old\n", "cut.txt": b"0123456789"})
    m = mount(repo.uri, "commit=manual")
    writer = m.start_py("""
        half = os.open('main/half', os.O_CREAT | os.O_RDWR)
        os.write(half, b'half of it')
        os.ftruncate(half, 7)
        say('cut')
        hear()
        """)
    shell = m.box.spawn(["sh", "-c", 'cd "$MNT"; sh -c "read x" > main/old.csv'], env={"MNT": m.dir})
    writer.expect("cut")
    eventually(lambda: m.stat("main/old.csv").size == 0, what="the redirection")
    m.py("os.truncate('main/cut.txt', 5)")
    box.expect("were open for writing")
    m.kill()
    writer.close()
    shell.close()
    m.restart()
    assert [m.xattr("main/" + name, "state") for name in ("half", "old.csv", "cut.txt")] == [
        "interrupted", "interrupted", "staged"]
    assert m.read("main/half") == b"half of"
    assert box.hugfs("commit", m.path("main"), check=False).status == 3
    assert repo.files() == {"old.csv": b"old\n", "cut.txt": b"01234"}


# Opens

def test_a_temporary_file_without_a_name(mount, box):
    """O_TMPFILE is refused as by a file system that does not know it, so that Python and glibc do it by other means."""
    m = mount(box.repo().uri, "commit=manual")
    assert m.outcome("os.open('main', os.O_TMPFILE | os.O_RDWR)") == "ENOTSUP"
    assert m.py("""
        import tempfile
        with tempfile.TemporaryFile(dir='main') as file:
            file.write(b'x' * 100000)
            file.seek(0)
            print(len(file.read()), [name for name in os.listdir('main') if name != '.gitattributes'])
        """).strip() == "100000 []"


@pytest.mark.parametrize("flag", ["O_SYNC", "O_DSYNC"])
def test_synchronous_writes_are_local(mount, box, hub, flag):
    repo = box.repo({"w.bin": WEIGHTS})
    m = mount(repo.uri, "commit_delay=60")
    m.stat("main/w.bin")
    seq = hub.last_seq()
    m.py(f"""
        for name in ('log', 'w.bin'):
            fd = os.open('main/' + name, os.O_CREAT | os.O_WRONLY | os.{flag})
            for n in range(20):
                os.write(fd, b'line %d\\n' % n)
            os.close(fd)
        """)
    assert [item for item in hub.requests(since=seq) if item["method"] != "GET"] == []
    assert repo.published() == []
    box.expect("were open for writing")
    m.kill()
    m.restart()
    assert m.read("main/log").decode().splitlines() == [f"line {n}" for n in range(20)]
    assert m.read("main/w.bin").startswith(b"line 0\nline 1\n")


def test_appends_by_several_processes_do_not_overwrite(both):
    both.py("""
        import subprocess
        code = "import os, sys\\nfd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)\\n" \\
               "for n in range(200): os.write(fd, b'%s %d\\\\n' % (sys.argv[2].encode(), n))"
        for path in ('log', 'a.txt'):
            running = [subprocess.Popen([sys.executable, '-c', code, path, str(n)]) for n in range(5)]
            print([process.wait() for process in running])
            lines = sorted(open(path).read().splitlines())
            print(len(lines), len(set(lines)))
            with open(path, 'w') as file:
                file.write('\\n'.join(lines))
        """)
    both.commit()


def test_locks_are_those_of_a_local_disk(mount, box):
    """flock, fcntl and OFD locks between processes; they go with the process."""
    m = mount(box.repo({"a.txt": b"x" * 100}).uri, "commit=manual")
    holder = m.start_py("""
        import fcntl
        whole, part = open('main/a.txt', 'r+b'), open('main/lock', 'w+b')
        fcntl.flock(whole, fcntl.LOCK_EX)
        fcntl.lockf(part, fcntl.LOCK_EX, 10, 0)
        say('held')
        hear()
        """)
    holder.expect("held")
    look = """
        import fcntl
        whole, part = open('main/a.txt', 'r+b'), open('main/lock', 'r+b')
        print(outcome(fcntl.flock, whole, fcntl.LOCK_EX | fcntl.LOCK_NB),
              outcome(fcntl.lockf, part, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5),
              outcome(fcntl.lockf, part, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10))
        """
    assert m.py(look).split() == ["EAGAIN", "EAGAIN", "0"]
    waiter = m.start_py("""
        import fcntl
        whole = open('main/a.txt', 'r+b')
        say('waits')
        fcntl.flock(whole, fcntl.LOCK_EX)
        say('got it')
        """)
    waiter.expect("waits")
    holder.process.kill()
    waiter.expect("got it")
    waiter.finish()
    eventually(lambda: m.py(look).split() == ["0", "0", "0"], what="the locks of a killed process to go")


def test_shared_mappings(both):
    both.py("""
        with open('shared', 'w+b') as file:
            file.truncate(1 << 20)
            with mmap.mmap(file.fileno(), 0) as view:
                if os.fork() == 0:
                    view[500000:500005] = b'child'
                    view.flush()
                    os._exit(0)
                os.wait()
                print(view[500000:500005])
                view[:6] = b'parent'
        print(open('shared', 'rb').read(6), os.path.getsize('shared'))
        file = open('w.bin', 'r+b')
        view = mmap.mmap(file.fileno(), 0)
        file.close()                           # the mapping is a writer still
        view[700000:700003] = b'abc'
        view.close()
        private = mmap.mmap(os.open('a.txt', os.O_RDONLY), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        private[:3] = b'not'
        print(open('a.txt', 'rb').read(3))
        """)
    both.commit()


def test_a_mapping_after_close_counts_as_a_writer(mount, box):
    repo = box.repo({"w.bin": WEIGHTS})
    m = mount(repo.uri, "commit=manual")
    child = m.start_py("""
        file = open('main/w.bin', 'r+b')
        view = mmap.mmap(file.fileno(), 0)
        file.close()
        view[:5] = b'first'
        say('mapped')
        hear()
        view[5:9] = b'last'
        view.close()
        say('done')
        hear()
        """)
    child.expect("mapped")
    box.hugfs("commit", m.path("main"), check=False)
    assert repo.published() == []
    child.tell()
    child.expect("done")
    eventually(lambda: m.xattr("main/w.bin", "state") == "staged", what="the end of the mapping")
    box.hugfs("commit", m.path("main"))
    assert repo.content("w.bin")[:9] == b"firstlast"
    child.tell()
    child.finish()


def test_rename_over_open_files(both):
    both.py("""
        reader, writer = open('w.bin', 'rb'), open('w.bin', 'r+b', 0)
        first = reader.read(1000)
        for n in range(5):
            with open('.new.tmp', 'wb') as file:
                file.write(b'version %d ' % n * 1000)
            os.replace('.new.tmp', 'w.bin')
            print(open('w.bin', 'rb').read(10), os.pread(reader.fileno(), 1000, 0) == first)
        writer.write(b'to nobody')
        print(os.pread(reader.fileno(), 9, 0), os.fstat(writer.fileno()).st_nlink)
        os.rename('b/c.txt', 'a.txt')
        """)
    both.commit()


# Programs

def test_sqlite(mount, box):
    repo = box.repo()
    m = mount(repo.uri, "fsync=stage", "commit=manual")
    script = "".join(f"insert into t values({n}, hex(randomblob(500)));" for n in range(200))
    for mode in ("delete", "wal", "truncate", "persist"):
        m.run(["sqlite3", m.path(f"main/{mode}.db"), f"pragma journal_mode={mode}; create table t(n, x); begin; {script}"
               " commit; update t set x = 'y' where n % 3 = 0; delete from t where n > 150; vacuum; pragma integrity_check;"])
    assert m.run(["sqlite3", m.path("main/wal.db"), "select count(*), sum(n) from t"]).out == "151|11325\n"
    box.hugfs("commit", m.path("main"))
    assert {"delete.db", "wal.db"} <= set(repo.paths())
    m.unmount()
    m.restart()
    assert m.run(["sqlite3", m.path("main/truncate.db"), "pragma integrity_check"]).out == "ok\n"


def test_git(mount, box):
    """`git init`, commits, gc, checkout in the mount; .git stays here."""
    repo = box.repo({"a.txt": b"one\n"})
    m = mount(repo.uri, "fsync=stage", "commit=manual")
    git = "git -c user.name=u -c user.email=u@localhost -c core.fsync=all"
    m.sh(f"""cd main; git init -q .; {git} add -A; {git} commit -qm first; echo two >> a.txt; seq 10000 > b.txt
        {git} add -A; {git} commit -qm second; {git} gc -q; {git} fsck --strict; {git} checkout -q HEAD~1; cat a.txt
        {git} checkout -q -; {git} status --porcelain""")
    assert m.sh("cd main; git log --format=%s").split() == ["second", "first"]
    box.hugfs("commit", m.path("main"))
    assert repo.paths() == ["a.txt", "b.txt"]
    m.unmount()
    m.restart()
    assert m.sh("cd main; git fsck --strict; git status --porcelain; git log --format=%s").split() == ["second", "first"]


def test_nano_and_emacs_save_patterns(both):
    """Nano writes in place, with a backup or not; Emacs renames the old file away and writes a new one, or copies it, with a lock
    that is a symbolic link (refused) and an auto-save file."""
    both.sh("""cp -p a.txt a.txt~; printf 'nano\\n' > .a.txt.swp; cat > a.txt < .a.txt.swp; rm .a.txt.swp a.txt~
        printf 'auto' > '#c.txt#'; mv b/c.txt b/c.txt~; printf 'emacs\\n' > b/c.txt; chmod 644 b/c.txt; rm '#c.txt#'
        cp -p b/d/e.txt b/d/e.txt~; printf 'by copying\\n' > b/d/e.txt; rm b/c.txt~ b/d/e.txt~""")
    both.commit()


# An edit of a large file

def sha256_of(size, changes):
    """Of `size` bytes (whole MiB) that are zeros but for {offset: bytes}, each within a MiB."""
    digest = hashlib.sha256()
    for at in range(0, size, MIB):
        piece = bytearray(MIB)
        for offset, data in changes.items():
            if at <= offset < at + MIB:
                piece[offset - at:offset - at + len(data)] = data
        digest.update(piece)
    return digest.hexdigest()


@pytest.mark.limit(120)
def test_editing_a_large_file_stages_what_is_written(mount, box, hub):
    """4 KiB in the middle: no request and no read before the commit, and then the commit is right. (With 10 GB by hand.)"""
    size = 256 * MIB
    repo = box.repo()
    hub.lfs_sparse(repo.id, "big.bin", size, {100 * MIB: b"seed"}, oid=sha256_of(size, {100 * MIB: b"seed"}))
    repo.mark()
    m = mount(repo.uri, "commit=manual")
    assert m.stat("main/big.bin").size == size
    seq = hub.last_seq()
    m.py("""
        with open('main/big.bin', 'r+b', 0) as file:
            os.pwrite(file.fileno(), b'edit' * 1024, 128 << 20)
        """)
    assert [item for item in hub.requests(since=seq) if item["origin"] == "data"] == []
    staged = int(box.run(["du", "-s", "--block-size=1", box.dir + "/home/state"]).out.split()[0])
    assert staged <= MIB
    box.hugfs("commit", m.path("main"), timeout=100)
    assert len(repo.published()) == 1
    oid = sha256_of(size, {100 * MIB: b"seed", 128 * MIB: b"edit" * 1024})
    assert os.path.basename(hub.lfs_path(repo.id, "big.bin")) == oid
    with open(hub.lfs_path(repo.id, "big.bin"), "rb") as file:
        file.seek(128 * MIB)
        assert file.read(4100) == b"edit" * 1024 + bytes(4)


# One branch, seen by several paths

def test_a_branch_seen_by_two_paths_is_one(mount, box):
    """repo/, repo@main/ and repo@/main/ of a mount of the whole Hub: bytes that are changed by one are seen by the others at
    once, also in pages that the kernel holds; names and modes once the kernel was told to forget what it knew of them."""
    repo = box.repo(FILES)
    m = mount("hf://", "commit=manual")
    user, name = repo.id.split("/")
    paths = [f"{user}/{name}", f"{user}/{name}@main", f"{user}/{name}@/main"]
    out = m.py("""
        one, two, three = sys.argv[1:]
        def read(path):
            with open(path, 'rb') as file:
                return file.read()
        print({os.stat(p + '/w.bin').st_ino for p in sys.argv[1:]}.__len__(), len({os.stat(p).st_ino for p in sys.argv[1:]}))
        print(len({read(p + '/w.bin') for p in sys.argv[1:]}), sorted(os.listdir(one)) == sorted(os.listdir(three)))
        with open(two + '/w.bin', 'r+b', 0) as file:          # pages of all three are there
            os.pwrite(file.fileno(), b'new bytes', 1000)
            print({read(p + '/w.bin')[1000:1009] for p in sys.argv[1:]})
        with mmap.mmap(os.open(one + '/w.bin', os.O_RDWR), 0) as view, open(three + '/w.bin', 'r+b', 0) as file:
            os.pwrite(file.fileno(), b'mapped', 5000)
            print(view[5000:5006])
            view[:4] = b'view'
            view.flush()
        print({read(p + '/w.bin')[:4] for p in sys.argv[1:]})
        with open(one + '/log', 'ab', 0) as a, open(two + '/log', 'ab', 0) as b:
            for n in range(10):
                (a if n % 2 else b).write(b'%d' % n)
        print({read(p + '/log') for p in sys.argv[1:]})
        """, *paths)
    assert out.splitlines() == ["1 3", "1 True", "{b'new bytes'}", "b'mapped'", "{b'view'}", "{b'0123456789'}"]

    names = """
        one, two, three = sys.argv[1:]
        def see(what):
            return {what(p) for p in sys.argv[1:]}
        def soon(what, expected):
            deadline = time.monotonic() + 10
            while see(what) != {expected}:
                assert time.monotonic() < deadline, (see(what), expected)
        see(lambda p: tuple(sorted(os.listdir(p + '/b'))))
        see(lambda p: os.path.exists(p + '/b/fresh'))           # remembered as absent
        open(two + '/b/fresh', 'w').close()
        soon(lambda p: os.path.exists(p + '/b/fresh'), True)
        os.rename(three + '/b/fresh', three + '/b/d/moved')
        soon(lambda p: (os.path.exists(p + '/b/fresh'), os.path.exists(p + '/b/d/moved')), (False, True))
        os.unlink(one + '/b/d/moved')
        soon(lambda p: os.path.exists(p + '/b/d/moved'), False)
        here = os.open(two + '/b/d', os.O_RDONLY)
        os.rename(two + '/b', two + '/b2')
        soon(lambda p: os.path.isdir(p + '/b'), False)
        print(see(lambda p: tuple(sorted(os.listdir(p + '/b2')))), os.listdir(here))
        os.mkdir(three + '/b2/new')
        os.chmod(one + '/b2/new', 0o700)
        soon(lambda p: os.stat(p + '/b2/new').st_mode & 0o777, 0o700)
        os.chdir(two + '/b2/d')
        os.rename('../../b2', '../../b3')
        print(os.getcwd().endswith('@main/b3/d'), sorted(os.listdir('.')))
        os.chdir(os.environ['MNT'])
        soon(lambda p: os.path.isdir(p + '/b3/new'), True)
        os.rmdir(one + '/b3/new')
        soon(lambda p: os.path.exists(p + '/b3/new'), False)
        """
    lines = m.py(names, *paths).splitlines()
    assert lines == ["{('c.txt', 'd')} ['e.txt', 'w2.bin']", "True ['e.txt', 'w2.bin']"]
    box.hugfs("commit", m.path(paths[1]))
    assert m.read(paths[0] + "/log") == b"0123456789" == repo.content("log")
    assert repo.content("w.bin")[1000:1009] == b"new bytes" and "b3/c.txt" in repo.paths()
    box.hugfs("discard", "-y", m.path(paths[2]))
    assert m.ls(paths[0]) == m.ls(paths[1]) == m.ls(paths[2])
