"""The block cache under a daemon: room, disks that are full, read-only or sick, damage, and who shares it."""

import contextlib
import fcntl
import glob
import hashlib
import os
import struct
import subprocess

import pytest

import harness
from harness import data_bytes, noise

MIB = 1 << 20
GOING_DOWN = 0x8004587D  # FS_IOC_SHUTDOWN of linux/fs.h: _IOR('X', 125, __u32)
READ_ALL = """
    import hashlib
    fd = os.open(sys.argv[1], os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    digest = hashlib.sha256()
    while True:
        data = os.read(fd, 1 << 20)
        if not data:
            break
        digest.update(data)
    print(digest.hexdigest())
    """


def digest(content):
    return hashlib.sha256(content).hexdigest()


def read_digest(m, path):
    return m.py(READ_ALL, path, timeout=40).strip()


def cache_dir(box):
    return os.path.join(box.dir, "home", "cache", "hugfs")


def on_disk(folder):
    """Bytes that the data files of a cache take."""
    return sum(os.stat(path).st_blocks * 512 for path in glob.glob(folder + "/obj/*/*") if not path.endswith(".map"))


@contextlib.contextmanager
def disk(box, size, *options):
    """An ext4 file system of its own in a file, as a cache disk; its folder."""
    image, folder = os.path.join(box.dir, "image"), box.folder("disk")
    with open(image, "wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", ",".join(("loop", *options)), image, folder], check=True)
    try:
        yield folder
    finally:
        for m in box.mounts:
            m.unmount()
        subprocess.run(["umount", folder], check=True)


def test_a_file_larger_than_the_cache(mount, box):
    """It is read right, from end to end and at random, while it stays open; and the cache stays below its size, but for a
    block of each connection that stores one at the same time."""
    content = noise(60 * MIB)
    m = mount(box.repo({"w.bin": content}).uri, "cache_size=20M", "nopassthrough")
    child = m.start_py("fd = os.open('main/w.bin', os.O_RDONLY); say('open'); hear()")
    child.expect("open")
    assert read_digest(m, "main/w.bin") == digest(content)
    assert read_digest(m, "main/w.bin") == digest(content)
    assert on_disk(cache_dir(box)) <= 32 * MIB
    out = m.py("""
        import hashlib, random
        rng = random.Random(5)
        fd = os.open('main/w.bin', os.O_RDONLY)
        for _ in range(100):
            at = rng.randrange(60 << 20)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            print(at, hashlib.sha256(os.pread(fd, 70000, at)).hexdigest())
        """)
    for line in out.splitlines():
        at, found = line.split()
        assert found == digest(content[int(at):int(at) + 70000])
    assert on_disk(cache_dir(box)) <= 32 * MIB
    child.tell()
    child.finish()


def test_the_least_recently_read_part_goes(mount, box, hub):
    """What is read again and again stays, though more than the cache's size passes by."""
    content = noise(40 * MIB)
    m = mount(box.repo({"w.bin": content, "hot.bin": noise(8 * MIB, 2)}).uri, "cache_size=24M", "nopassthrough")
    out = m.py("""
        fd, hot = (os.open('main/' + name, os.O_RDONLY) for name in ('w.bin', 'hot.bin'))
        for at in range(0, 40 << 20, 1 << 20):
            os.pread(fd, 1 << 20, at)
            os.posix_fadvise(hot, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(hot, 8 << 20, 0)
        print('done')
        """)
    assert out.strip() == "done"
    seq = hub.last_seq()
    assert read_digest(m, "main/hot.bin") == digest(noise(8 * MIB, 2))
    assert data_bytes(hub, seq) == 0


def test_one_copy_for_all_revisions_and_repositories(mount, box, hub):
    content = noise(3 * MIB, seed=77)
    first, second = box.repo({"a.bin": content}), box.repo({"b/c.bin": content})
    first.push({"other.txt": b"x"})
    m = mount(first.uri)
    n = mount(second.uri)
    assert read_digest(m, "main/a.bin") == digest(content)
    seq = hub.last_seq()
    commit = hub.git(first.id, "rev-parse", "main~1").decode().strip()
    assert read_digest(m, f"{commit}/a.bin") == digest(content)
    assert read_digest(n, "main/b/c.bin") == digest(content)
    assert data_bytes(hub, seq) == 0


def test_the_official_cache_without_symlinks(mount, box, hub):
    """As on a file system that has none: the content lies in snapshots/COMMIT/PATH."""
    content = noise(3 * MIB, seed=31)
    repo = box.repo({"dir/w.bin": content, "small.txt": b"small\n"})
    cache = os.path.join(box.dir, "home", "hf", "hub")
    folder = harness.snapshot_download(hub, repo, cache_dir=cache)
    for name in ("dir/w.bin", "small.txt"):
        path = os.path.join(folder, name)
        os.rename(os.path.realpath(path), path)
    subprocess.run(["chown", "-R", f"{box.account.uid}:{box.account.gid}", os.path.join(box.dir, "home", "hf")], check=True)
    m = mount(repo.uri)
    seq = hub.last_seq()
    assert read_digest(m, "main/dir/w.bin") == digest(content)
    assert m.read("main/small.txt") == b"small\n"
    assert data_bytes(hub, seq) == 0


def test_an_index_that_is_damaged_while_unmounted(mount, box):
    content = noise(3 * MIB)
    m = mount(box.repo({"w.bin": content}).uri)
    assert read_digest(m, "main/w.bin") == digest(content)
    m.unmount()
    index = os.path.join(cache_dir(box), "index.db")
    with open(index, "r+b") as file:
        file.write(b"nonsense" * 100)
    box.expect("is damaged")
    m.restart()
    assert read_digest(m, "main/w.bin") == digest(content)
    assert os.path.exists(index + ".bad")
    m.unmount()
    m.restart()
    assert read_digest(m, "main/w.bin") == digest(content)


def test_an_index_that_is_damaged_under_way(mount, box):
    content = noise(30 * MIB)
    m = mount(box.repo({"w.bin": content, "v.bin": content[::-1]}).uri)
    assert read_digest(m, "main/w.bin") == digest(content)
    for name in ("index.db", "index.db-wal"):
        path = os.path.join(cache_dir(box), name)
        with open(path, "r+b") as file:
            file.write(b"nonsense" * (os.path.getsize(path) // 8))
    box.expect("damaged|index|served without the cache")
    assert read_digest(m, "main/w.bin") == digest(content)
    assert read_digest(m, "main/v.bin") == digest(content[::-1])
    m.unmount()
    m.restart()
    assert read_digest(m, "main/v.bin") == digest(content[::-1])


def test_a_full_disk(root_box):
    """Others have filled it: every read succeeds, and nothing is lost when there is room again."""
    content = noise(40 * MIB)
    with disk(root_box, 64 * MIB) as folder:
        m = root_box.mount(root_box.repo({"w.bin": content, "v.bin": content[::-1], "s.txt": b"small"}).uri,
                           f"cache_dir={folder}/cache")
        root_box.expect("No space left|database or disk is full")
        assert read_digest(m, "main/w.bin") == digest(content)
        with open(folder + "/ballast", "wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(MIB))
        assert read_digest(m, "main/w.bin") == digest(content)
        assert read_digest(m, "main/v.bin") == digest(content[::-1])
        assert m.read("main/s.txt") == b"small"
        os.unlink(folder + "/ballast")
        assert read_digest(m, "main/v.bin") == digest(content[::-1])
        m.unmount()
        m.restart()
        assert read_digest(m, "main/w.bin") == digest(content)


def test_a_disk_that_is_full_from_the_start(root_box):
    content = noise(12 * MIB)
    with disk(root_box, 16 * MIB) as folder:
        with open(folder + "/ballast", "wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
                file.flush()
        root_box.expect("No space left|cannot be used|full")
        os.mkdir(folder + "/cache", 0o700)
        m = root_box.mount(root_box.repo({"w.bin": content}).uri, f"cache_dir={folder}/cache")
        assert read_digest(m, "main/w.bin") == digest(content)


def test_a_read_only_disk(root_box, hub):
    """What is cached there is used; the rest is served without a cache."""
    content = noise(12 * MIB)
    with disk(root_box, 64 * MIB) as folder:
        repo = root_box.repo({"w.bin": content, "v.bin": content[::-1]})
        m = root_box.mount(repo.uri, f"cache_dir={folder}/cache")
        assert read_digest(m, "main/w.bin") == digest(content)
        m.unmount()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        root_box.expect("Read-only|cannot be used|readonly")
        m.restart()
        assert read_digest(m, "main/w.bin") == digest(content)
        assert read_digest(m, "main/v.bin") == digest(content[::-1])
        m.unmount()


@pytest.mark.parametrize("how", ["shut down", "read-only"])
def test_a_disk_that_fails_under_way(root_box, how):
    """An error of the file system makes it read-only (Debian's errors=remount-ro), or nothing of it can be reached."""
    content = noise(12 * MIB)
    with disk(root_box, 64 * MIB, "errors=remount-ro") as folder:
        repo = root_box.repo({"w.bin": content, "v.bin": content[::-1]})
        m = root_box.mount(repo.uri, f"cache_dir={folder}/cache", "nopassthrough")
        assert m.py("fd = os.open('main/w.bin', os.O_RDONLY); print(len(os.pread(fd, 6 << 20, 0)))").strip() == "6291456"
        subprocess.run(["sync", "-f", folder], check=True)
        if how == "shut down":
            handle = os.open(folder, os.O_RDONLY)
            fcntl.ioctl(handle, GOING_DOWN, struct.pack("I", 2))
            os.close(handle)
        else:
            device = os.path.basename(subprocess.check_output(["findmnt", "-n", "-o", "SOURCE", folder], text=True).strip())
            with open(f"/sys/fs/ext4/{device}/trigger_fs_error", "w", encoding="ascii") as file:
                file.write("test")
        root_box.expect("Input/output error|Read-only|disk I/O|readonly|failed|damaged|No space|nothing more is stored|"
                        "cannot be read")
        for _ in range(2):
            assert read_digest(m, "main/w.bin") == digest(content)
            assert read_digest(m, "main/v.bin") == digest(content[::-1])
        assert m.process.poll() is None
