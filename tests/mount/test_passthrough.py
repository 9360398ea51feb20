"""Files that the kernel reads by itself (passthrough): when it does, when it must not, and that nobody ever sees other
bytes or an error because of it. A file is read by the kernel alone if a read succeeds while the daemon is stopped."""

import hashlib
import os
import signal

import pytest

import harness
from harness import noise

MIB = 1 << 20
LENT = "its file is lent"
DEBUG = "log=info\\,ops=debug"
READ = "fd = os.open(sys.argv[1], os.O_RDONLY); print(hashlib.sha256(os.pread(fd, 1 << 30, 0)).hexdigest())"


def digest(content):
    return hashlib.sha256(content).hexdigest()


def read_digest(m, path):
    return m.py("import hashlib\n" + READ, path).strip()


def lent(m):
    return m.stderr().count(LENT)


def wait_lent(m, path):
    """Open the file until it is lent: its last block was stored and its hash compared."""
    def try_once():
        before = lent(m)
        m.py("os.close(os.open(sys.argv[1], os.O_RDONLY))", path)
        return lent(m) > before
    harness.eventually(try_once, what=f"{path} is lent")


def warm(m, path, content):
    assert read_digest(m, path) == digest(content)
    wait_lent(m, path)


def cache_files(box):
    """The data files of the block cache that hold more than a block."""
    found = []
    for folder, _, names in os.walk(os.path.join(box.dir, "home", "cache", "hugfs", "obj")):
        paths = [os.path.join(folder, name) for name in names if not name.endswith(".map")]
        found += [path for path in paths if os.stat(path).st_blocks * 512 > MIB]
    return found


class Stopped:
    """The daemon answers nothing inside this block."""

    def __init__(self, m):
        self.pid = m.process.pid

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def world(root_box):
    """A mount by root of a repository with one large file, and its content."""
    content = noise(5 * MIB + 4321)
    repo = root_box.repo({"w.bin": content, "small.txt": b"small\n"})
    m = root_box.mount(repo.uri, DEBUG)
    return root_box, repo, m, content


def test_a_complete_file_is_read_without_the_daemon(world):
    _, _, m, content = world
    warm(m, "main/w.bin", content)
    child = m.start_py("""
        import hashlib
        fd = os.open('main/w.bin', os.O_RDONLY)
        mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        say('open')
        hear()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        say(hashlib.sha256(os.pread(fd, 1 << 30, 0)).hexdigest())
        say(hashlib.sha256(mapping).hexdigest())
        """)
    child.expect("open")
    with Stopped(m):
        child.tell()
        assert child.expect(timeout=10) == digest(content)
        assert child.expect(timeout=10) == digest(content)
    child.finish()


def test_a_new_mount_lends_at_the_first_open(world, hub):
    _, _, m, content = world
    warm(m, "main/w.bin", content)
    m.unmount()
    m.restart()
    before, seq = lent(m), hub.last_seq()
    assert read_digest(m, "main/w.bin") == digest(content)
    assert lent(m) == before + 1
    assert hub.requests(since=seq, origin="data") == []


def test_small_files_are_not_lent(world):
    _, _, m, content = world
    for _ in range(3):
        assert m.read("main/small.txt") == b"small\n"
    warm(m, "main/w.bin", content)
    before = lent(m)
    assert m.read("main/small.txt") == b"small\n"
    assert lent(m) == before


def test_nopassthrough(world):
    _, _, m, content = world
    warm(m, "main/w.bin", content)
    m.unmount()
    before = lent(m)
    m.restart(DEBUG, "nopassthrough")
    for _ in range(3):
        assert read_digest(m, "main/w.bin") == digest(content)
    assert lent(m) == before


def test_an_ordinary_user_reads_through_the_daemon(user_box):
    content = noise(3 * MIB)
    m = user_box.mount(user_box.repo({"w.bin": content}).uri, DEBUG)
    for _ in range(3):
        assert read_digest(m, "main/w.bin") == digest(content)
    m.unmount()
    m.restart()
    assert read_digest(m, "main/w.bin") == digest(content)
    assert lent(m) == 0


def test_a_file_that_becomes_complete_while_open(world):
    """The first open decides for all that are open together: later ones get no EIO."""
    _, _, m, content = world
    first = m.start_py("fd = os.open('main/w.bin', os.O_RDONLY); os.pread(fd, 1, 0); say('open'); hear()\n"
                       "say(outcome(os.pread, fd, 1 << 20, 0))")
    first.expect("open")
    assert read_digest(m, "main/w.bin") == digest(content)
    for _ in range(5):
        assert read_digest(m, "main/w.bin") == digest(content)
    assert lent(m) == 0
    first.tell()
    first.expect("0")
    first.finish()
    wait_lent(m, "main/w.bin")


def test_many_open_at_once(world):
    _, _, m, content = world
    warm(m, "main/w.bin", content)
    out = m.py("""
        import concurrent.futures, hashlib, random
        def work(seed):
            rng = random.Random(seed)
            for _ in range(40):
                fd = os.open('main/w.bin', os.O_RDONLY)
                at = rng.randrange(5 << 20)
                data = os.pread(fd, 4096, at)
                os.close(fd)
                assert data == whole[at:at + 4096]
        whole = open('main/w.bin', 'rb').read()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        print('good')
        """)
    assert out.strip() == "good"


def test_a_writer_beside_a_lent_file(world):
    """The reader keeps what it opened; whoever opens later sees what was written; the cache file is not touched."""
    box, repo, m, content = world
    warm(m, "main/w.bin", content)
    reader = m.start_py("""
        import hashlib
        fd = os.open('main/w.bin', os.O_RDONLY)
        mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        say('open')
        hear()
        say(hashlib.sha256(os.pread(fd, 1 << 30, 0)).hexdigest(), hashlib.sha256(mapping).hexdigest(), os.fstat(fd).st_size)
        """)
    reader.expect("open")
    files = {path: open(path, "rb").read() for path in cache_files(box)}
    assert files
    m.py("with open('main/w.bin', 'r+b') as f: f.seek(100); f.write(b'changed')")
    changed = content[:100] + b"changed" + content[107:]
    assert read_digest(m, "main/w.bin") == digest(changed)
    assert m.py("fd = os.open('main/w.bin', os.O_RDONLY); print(mmap.mmap(fd, 0, prot=mmap.PROT_READ)[100:107])").strip() \
        == "b'changed'"
    reader.tell()
    assert reader.expect().split() == [digest(content), digest(content), str(len(content))]
    reader.finish()
    assert {path: open(path, "rb").read() for path in files} == files
    m.py("with open('main/w.bin', 'ab') as f: f.write(b'end')")
    repo.wait_published()
    assert repo.content("w.bin") == changed + b"end"
    assert read_digest(m, "main/w.bin") == digest(changed + b"end")


@pytest.mark.parametrize("change, expected", [
    ("os.truncate('main/w.bin', 10)", lambda old: old[:10]),
    ("open('main/w.bin', 'wb').write(b'new')", lambda old: b"new"),
    ("open('main/w.bin', 'ab').write(b'end')", lambda old: old + b"end"),
    ("(os.rename('main/w.bin', 'main/v.bin'), open('main/v.bin', 'r+b').write(b'x'), "
     "os.rename('main/v.bin', 'main/w.bin'))", lambda old: b"x" + old[1:]),
    ("(os.unlink('main/w.bin'), open('main/w.bin', 'xb').write(b'again'))", lambda old: b"again"),
])
def test_changes_beside_a_lent_file(world, change, expected):
    _, repo, m, content = world
    warm(m, "main/w.bin", content)
    reader = m.start_py("""
        import hashlib
        fd = os.open('main/w.bin', os.O_RDONLY)
        say('open')
        hear()
        say(hashlib.sha256(os.pread(fd, 1 << 30, 0)).hexdigest())
        """)
    reader.expect("open")
    assert m.outcome(change) == "0"
    assert read_digest(m, "main/w.bin") == digest(expected(content))
    reader.tell()
    assert reader.expect() == digest(content)
    reader.finish()
    repo.wait_published()
    assert repo.content("w.bin") == expected(content)


def test_a_mode_that_was_set_stays_with_the_name(world):
    _, _, m, content = world
    warm(m, "main/w.bin", content)
    m.sh("chmod 0640 main/w.bin")
    reader = m.start_py("fd = os.open('main/w.bin', os.O_RDONLY); say('open'); hear()")
    reader.expect("open")
    m.py("with open('main/w.bin', 'r+b') as f: f.write(b'x')")
    assert m.stat("main/w.bin").mode & 0o777 == 0o640
    reader.tell()
    reader.finish()


def test_readers_and_writers_at_random(world):
    """No open, read or write ever fails, and a reader sees one version of the file, whole."""
    _, _, m, content = world
    warm(m, "main/w.bin", content)
    out = m.py("""
        import random, threading
        stop = threading.Event()
        failures = []
        def guard(work):
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                failures.append(repr(error))
        def read():
            fd = os.open('main/w.bin', os.O_RDONLY)
            head = os.pread(fd, 8, 0)
            os.pread(fd, 1 << 16, random.randrange(5 << 20))
            os.close(fd)
            if head[:4] not in (first[:4], b'head'):
                raise ValueError(head)
        def write():
            fd = os.open('main/w.bin', os.O_RDWR)
            os.pwrite(fd, b'head', 0)
            os.close(fd)
        first = open('main/w.bin', 'rb').read(8)
        threads = [threading.Thread(target=guard, args=(work,)) for work in (read, read, read, write)]
        for thread in threads:
            thread.start()
        stop.wait(2)
        stop.set()
        for thread in threads:
            thread.join()
        print(failures)
        """)
    assert out.strip() == "[]"


def flip(path, at):
    """Change one byte and put the times back."""
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_byte_that_was_changed_while_unmounted(world):
    box, _, m, content = world
    warm(m, "main/w.bin", content)
    m.unmount()
    for path in cache_files(box):
        flip(path, 2 * MIB + 5)
    m.restart()
    box.expect("does not have its checksum")
    assert read_digest(m, "main/w.bin") == digest(content)
    wait_lent(m, "main/w.bin")
    assert read_digest(m, "main/w.bin") == digest(content)


def test_a_hole_that_was_made_while_unmounted(world):
    box, _, m, content = world
    warm(m, "main/w.bin", content)
    m.unmount()
    for path in cache_files(box):
        box.run(["fallocate", "--punch-hole", "--offset", str(MIB), "--length", str(MIB), path])
    m.restart()
    box.expect("does not have its checksum")
    assert read_digest(m, "main/w.bin") == digest(content)


def test_a_file_of_the_official_cache_is_lent_in_place(root_box, hub):
    content = noise(4 * MIB, seed=9)
    repo = root_box.repo({"w.bin": content})
    cache = os.path.join(root_box.dir, "home", "hf", "hub")
    harness.snapshot_download(hub, repo, cache_dir=cache)
    m = root_box.mount(repo.uri, DEBUG)
    seq = hub.last_seq()
    warm(m, "main/w.bin", content)
    assert hub.requests(since=seq, origin="data") == []
    assert cache_files(root_box) == []
    m.unmount()
    m.restart()
    before = lent(m)
    assert read_digest(m, "main/w.bin") == digest(content)
    assert lent(m) == before + 1


def test_a_file_of_the_official_cache_that_changed_is_not_lent(root_box, hub):
    content = noise(4 * MIB, seed=10)
    repo = root_box.repo({"w.bin": content})
    cache = os.path.join(root_box.dir, "home", "hf", "hub")
    where = harness.snapshot_download(hub, repo, cache_dir=cache)
    m = root_box.mount(repo.uri, DEBUG)
    warm(m, "main/w.bin", content)
    m.unmount()
    before = lent(m)
    flip(os.path.realpath(os.path.join(where, "w.bin")), 3 * MIB)
    root_box.expect("does not hold the bytes that its name says")
    m.restart()
    assert read_digest(m, "main/w.bin") == digest(content)
    assert lent(m) == before


def test_the_kernel_reads_ahead_in_large_pieces(root_box):
    m = root_box.mount(root_box.repo({"w.bin": noise(MIB)}).uri)
    m.ls("main")
    device = m.py("s = os.stat('.').st_dev; print(f'{os.major(s)}:{os.minor(s)}')").strip()
    with open(f"/sys/class/bdi/{device}/read_ahead_kb", encoding="ascii") as file:
        assert file.read().strip() == "512"


def test_a_write_brings_no_getxattr(mount, box):
    """One request a write: the kernel does not ask for security.capability each time."""
    m = mount(box.repo().uri)

    def requests():
        with open(f"/proc/{m.process.pid}/io", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("syscr")).split()[1])

    before = requests()
    m.py("""
        fd = os.open('main/w.tmp', os.O_RDWR | os.O_CREAT)
        for i in range(2000):
            os.pwrite(fd, b'x' * 100, i * 100)
        """)
    assert requests() - before < 2500


def test_a_write_takes_set_user_id_away(root_box):
    """HANDLE_KILLPRIV_V2 leaves that to us."""
    m = root_box.mount(root_box.repo({"a": b"old"}).uri, "allow_other,umask=000")
    for way in ("with open(path, 'r+b') as f: f.write(b'x')", "open(path, 'wb').close()", "os.truncate(path, 1)"):
        mode = m.py(f"""
            path = 'main/a'
            os.chmod(path, 0o6777)
            if os.fork() == 0:
                os.setgid(65534)
                os.setuid(65534)
                {way}
                os._exit(0)
            assert os.wait()[1] == 0
            print(oct(os.stat(path).st_mode & 0o7777))
            """)
        assert mode.strip() == "0o777", way
    mode = m.py("os.chmod('main/a', 0o6755); os.chown('main/a', 65534, 65534); "
                "print(oct(os.stat('main/a').st_mode & 0o7777))")
    assert mode.strip() == "0o755"


def test_a_cache_on_an_overlay(root_box):
    """As in a container: files of an overlay are lent, too."""
    for name in ("lower", "upper", "work", "merged"):
        root_box.folder(name)
    if root_box.run(["stat", "-f", "-c", "%T", root_box.dir]).out.strip() == "overlayfs":
        pytest.skip("an overlay over an overlay is one too many for the kernel")
    where = root_box.dir
    root_box.run(["mount", "-t", "overlay", "overlay", "-o",
                  f"lowerdir={where}/lower,upperdir={where}/upper,workdir={where}/work", where + "/merged"])
    try:
        content = noise(3 * MIB)
        m = root_box.mount(root_box.repo({"w.bin": content}).uri, DEBUG, f"cache_dir={where}/merged/cache")
        warm(m, "main/w.bin", content)
        assert read_digest(m, "main/w.bin") == digest(content)
        m.unmount()
    finally:
        root_box.run(["umount", where + "/merged"])


def test_an_overlay_over_the_mount(root_box):
    """A mount that lends files is one file system deep; an overlay may still lie over it."""
    content = noise(3 * MIB)
    m = root_box.mount(root_box.repo({"w.bin": content}).uri, DEBUG, "ro")
    warm(m, "main/w.bin", content)
    merged = root_box.folder("merged")
    root_box.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={m.dir}/main:{root_box.folder('empty')}", merged])
    try:
        assert root_box.run(["cat", merged + "/w.bin"], data=True).out == content
    finally:
        root_box.run(["umount", merged])
