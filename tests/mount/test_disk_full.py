"""The disk runs full: the cache on it gives way first, then writers are told, and what needs little room (close, rename, rm, the
journal) goes on; nothing that was staged is lost.
"""

import os
import textwrap

import pytest

from harness import eventually

MIB = 1 << 20
FILES = {"a.txt": b"one\n", "big.bin": os.urandom(20 * MIB)}
FILL = textwrap.dedent("""
    def fill(path, most=1 << 30):
        fd, n = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 0
        try:
            while n < most:
                n += os.write(fd, bytes(range(256)) * 512)
        except OSError as error:
            print(errno.errorcode[error.errno], n)
        else:
            print('0', n)
        print(outcome(os.fsync, fd), outcome(os.close, fd))
    """)


@pytest.fixture
def disk(box):
    """A small disk: (its folder, its size)."""
    folder = box.folder("disk", 0o700)

    def make(size):
        box.run(["mount", "-t", "tmpfs", "-o",
                 f"size={size},mode=700,uid={box.account.uid},gid={box.account.gid}", "tmpfs", folder], as_root=True)
        return folder
    yield make
    for mount in box.mounts:
        mount.unmount()
    box.run(["umount", folder], as_root=True)


def test_the_cache_gives_way_to_writers(mount, box, disk):
    """They share a disk of 48 MB: 20 MB were read, 40 MB are written."""
    repo = box.repo(FILES)
    folder = disk("48m")
    box.expect(r"warn (index|blocks): .*No space left")  # the cache goes without
    m = mount(repo.uri, "fsync=stage", "commit=manual", f"cache_dir={folder}/cache", f"staging_dir={folder}/staging")
    assert m.read("main/big.bin") == FILES["big.bin"]
    eventually(lambda: int(box.run(["du", "-sm", folder + "/cache"]).out.split()[0]) >= 20, what="the cache to be filled")
    assert m.py(FILL + f"fill('main/new.bin', {40 * MIB})").split() == ["0", str(40 * MIB), "0", "0"]
    assert int(box.run(["du", "-sm", folder + "/cache"]).out.split()[0]) < 8
    assert m.read("main/new.bin") == bytes(range(256)) * (40 * MIB // 256)
    assert m.read("main/big.bin") == FILES["big.bin"]  # without a cache
    box.hugfs("commit", m.path("main"))
    assert repo.content("new.bin") == bytes(range(256)) * (40 * MIB // 256)


def test_a_full_disk_takes_what_needs_little_room(mount, box, disk):
    repo = box.repo(FILES)
    folder = disk("12m")
    box.expect(r"(err|warn) .*(No space left|disk is full|disk I/O error|database or disk)")
    m = mount(repo.uri, "fsync=stage", "commit=manual", "staging_dir=" + folder)
    m.sh("cd main; mkdir d; for i in $(seq 60); do echo $i > d/$i; done")
    out = m.py(FILL + textwrap.dedent("""
        held = os.open('main/held', os.O_CREAT | os.O_WRONLY)
        os.write(held, b'before')
        fill('main/full.bin')
        for n in range(1000):
            if outcome(lambda: open(f'main/small{n}', 'x').close()) == 'ENOSPC':
                break
        print('names end', n < 999)
        print(outcome(os.write, held, bytes(1 << 20)), outcome(os.close, held))
        print({outcome(os.rename, f'main/d/{n}', f'main/d/moved{n}') for n in range(1, 51)})
        print(outcome(os.rename, 'main/a.txt', 'main/b.txt'), outcome(os.chmod, 'main/b.txt', 0o600))
        print({outcome(os.unlink, f'main/d/{n}') for n in range(51, 61)})
        """)).splitlines()
    assert out[0].startswith("ENOSPC ") and out[1:3] == ["0 0", "names end True"]
    assert out[3:] == ["ENOSPC 0", "{'0'}", "0 0", "{'0'}"]
    written = int(out[0].split()[1])
    m.unmount()
    m.restart()
    assert m.read("main/full.bin") == bytes(range(256)) * (written // 256) and m.read("main/held").startswith(b"before")
    m.sh("cd main; rm -f small*; rm held")
    box.hugfs("commit", m.path("main"))
    files = repo.files()
    assert files.pop("full.bin") == bytes(range(256)) * (written // 256)
    assert files == {"b.txt": b"one\n", "big.bin": FILES["big.bin"],
                     **{f"d/moved{n}": b"%d\n" % n for n in range(1, 51)}}
    m.sh("cd main; head -c 1M /dev/zero > again; cat again | wc -c")  # there is room again
    m.unmount()
    m.restart()
    assert m.stat("main/b.txt").mode & 0o777 == 0o600 and m.stat("main/again").size == MIB


def test_a_commit_on_a_full_disk(mount, box, disk):
    """Publishing frees the disk, so it must not need any."""
    repo = box.repo(FILES)
    folder = disk("8m")
    box.expect(r"(err|warn) .*(No space left|disk is full|disk I/O error|database or disk)")
    m = mount(repo.uri, "fsync=stage", "commit=manual", "staging_dir=" + folder)
    written = int(m.py(FILL + "fill('main/full.bin')").split()[1])
    box.hugfs("commit", m.path("main"))
    assert repo.content("full.bin") == bytes(range(256)) * (written // 256)
    eventually(lambda: int(box.run(["df", "--output=avail", "-k", folder]).out.split()[1]) > 4096, what="the disk to be free")
    assert m.outcome("open('main/more', 'wb').write(bytes(1 << 20))") == "0"


def test_df_shows_the_staging_disk(mount, box, disk):
    folder = disk("40m")
    m = mount(box.repo(FILES).uri, "commit=manual", "staging_dir=" + folder + "/not/yet/there")
    assert m.py("s = os.statvfs('main'); print(s.f_blocks * s.f_frsize)").strip() == str(40 * MIB)
    m.write("main/x", bytes(10 * MIB))
    assert m.py("s = os.statvfs('main'); print(s.f_bavail * s.f_frsize < 31 << 20)").strip() == "True"


def test_offline_writes_are_staged_and_published_later(mount, box):
    repo = box.repo(FILES)
    m = mount(repo.uri, "commit=manual")
    assert m.read("main/a.txt") == b"one\n"
    m.ls("main")
    m.unmount()
    m.restart("commit_delay=0.2", "offline")
    box.expect(r"offline|network|published")
    m.sh("cd main; echo two >> a.txt; mkdir d; echo new > d/new; mv a.txt b.txt")
    assert m.outcome("os.fsync(os.open('main/b.txt', os.O_RDWR))") == "ENETDOWN"
    assert m.read("main/b.txt") == b"one\ntwo\n"
    assert box.hugfs("commit", m.path("main"), check=False).status != 0
    m.unmount()
    assert repo.published() == []
    m.restart("commit_delay=0.2")
    repo.wait_published()
    files = repo.files()
    del files["big.bin"]
    assert files == {"b.txt": b"one\ntwo\n", "d/new": b"new\n"}


def test_without_a_cache_writes_are_the_same(mount, box, disk):
    """No block fits on the cache's disk."""
    repo = box.repo(FILES)
    box.expect(r"warn|err|No space left")
    m = mount(repo.uri, "commit=manual", f"cache_dir={disk('300k')}/cache")
    m.sh("""cd main; printf X | dd of=big.bin bs=1 seek=1000000 conv=notrunc status=none; cp big.bin copy.bin
        echo two >> a.txt; mv copy.bin moved.bin""")
    expected = FILES["big.bin"][:1000000] + b"X" + FILES["big.bin"][1000001:]
    assert m.read("main/moved.bin") == expected
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {"big.bin": expected, "moved.bin": expected, "a.txt": b"one\ntwo\n"}


def test_a_token_that_may_only_read(mount, box):
    repo = box.repo(FILES)
    box.token = "reader"
    box.expect("may not write there")
    m = mount(repo.uri, "commit=manual")
    assert m.outcome("open('main/new', 'w')") == "EROFS" and m.outcome("open('main/a.txt', 'a')") == "EROFS"
    assert m.outcome("os.unlink('main/a.txt')") == "EROFS" and m.outcome("os.rename('main/a.txt', 'main/b')") == "EROFS"
    assert m.outcome("os.chmod('main/a.txt', 0o600)") == "EROFS" and m.outcome("os.truncate('main/a.txt', 0)") == "EROFS"
    assert m.outcome("os.mkdir('main/d')") == "EROFS" and m.stat("main/a.txt").mode & 0o222 == 0
    assert m.read("main/a.txt") == b"one\n"
