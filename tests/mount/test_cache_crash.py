"""kill -9 at any moment while the cache is filled and evicted: no wrong byte ever reaches a reader (line 4 of the read
contract). Each round: a daemon on what the last one left, two kinds of readers beside each other, a kill at a random
moment; between rounds, now and then, a byte of the cache is flipped, a hole is made, or the index is lost.

    pytest tests/mount/test_cache_crash.py --crash-rounds=1000 [--crash-seed=N]

A failure names its seed. Every round is a function of the seed, but for the kernel's scheduling."""

import glob
import os
import random
import time

import pytest

MIB = 1 << 20
SIZES = [5 * MIB + 123, 3 * MIB, 9 * MIB + 1, MIB + 7, 40_000, 17 * MIB]
CACHE = 20 * MIB
READERS = """
    import random, threading
    truth = {name: open(os.path.join(sys.argv[1], name), 'rb').read() for name in sys.argv[3:]}
    wrong = []
    def is_gone():
        try:
            os.stat('main/no-such-name')
        except OSError as error:
            return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    def check(name, fd, at, want):
        # A read that the kill cuts off may be short; what it brought must be right.
        end = min(at + want, len(truth[name]))
        while at < end:
            data = os.pread(fd, end - at, at)
            if not data or data != truth[name][at:at + len(data)]:
                wrong.append(f'{name} {at}..{end}: {len(data)} bytes, {data[:16]}')
                return
            at += len(data)
    def use(rng):
        name = rng.choice(list(truth))
        fd = os.open('main/' + name, os.O_RDONLY)
        try:
            if rng.random() < 0.3:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if rng.random() < 0.2:
                check(name, fd, 0, len(truth[name]))
            for _ in range(rng.randrange(12)):
                check(name, fd, rng.randrange(len(truth[name])), rng.choice((1, 4096, 70000, 1 << 20)))
        finally:
            os.close(fd)
    def read(seed):
        rng = random.Random(seed)
        try:
            while True:
                use(rng)
        except OSError as error:
            if not is_gone():
                wrong.append(repr(error))
    threads = [threading.Thread(target=read, args=(f'{sys.argv[2]}/{i}',)) for i in range(4)]
    for thread in threads:
        thread.start()
    say('reading')
    for thread in threads:
        thread.join()
    say('wrong', wrong)
    """


@pytest.fixture
def rounds(request):
    return request.config.getoption("--crash-rounds")


@pytest.fixture
def seed(request):
    return request.config.getoption("--crash-seed") or random.SystemRandom().randrange(1 << 32)


def data_files(box):
    paths = glob.glob(os.path.join(box.dir, "home", "cache", "hugfs", "obj", "*", "*"))
    return [path for path in paths if not path.endswith(".map") and os.path.getsize(path)]


def damage(box, rng):
    """What happens to a cache between two mounts."""
    files = data_files(box)
    what = rng.random()
    if not files or what < 0.5:
        return
    path = rng.choice(files)
    size = os.path.getsize(path)
    at = rng.randrange(size)
    if what < 0.7:
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ (1 << rng.randrange(8))]))
    elif what < 0.85:
        box.run(["fallocate", "--punch-hole", "--offset", str(at // 4096 * 4096), "--length", str(rng.choice((4096, MIB))),
                 path])
    elif what < 0.92:
        with open(path, "r+b") as file:
            file.truncate(at)
    elif what < 0.95:
        os.unlink(path)
    else:
        for index in glob.glob(os.path.join(box.dir, "home", "cache", "hugfs", "index.db*")):
            os.unlink(index)


@pytest.mark.limit(3600)
def test_kill_while_the_cache_fills_and_evicts(mount, box, rounds, seed):
    rng = random.Random(seed)
    content = {f"f{i}.bin": rng.randbytes(size) for i, size in enumerate(SIZES)}
    truth = box.folder("truth")
    for name, data in content.items():
        with open(os.path.join(truth, name), "wb") as file:
            file.write(data)
        os.chmod(os.path.join(truth, name), 0o644)
    repo = box.repo(content)
    box.expect("does not have its checksum|is not there|was cut off|bytes that arrived do not have|is damaged")
    box.expect("cannot be read|another daemon fills a block")
    m = None
    for number in range(rounds):
        options = [f"cache_size={CACHE}"] + rng.choice(([], ["nopassthrough"]))
        if m is None:
            m = mount(repo.uri, *options)
        else:
            m.restart(*options)
        child = m.start_py(READERS, truth, f"{seed}/{number}", *content)
        child.expect("reading")
        time.sleep(rng.choice((0.05, 0.2, 0.6)) * rng.random())  # the moment of the kill is what is tried
        m.kill()
        assert child.expect("wrong") == "wrong []", f"round {number} of --crash-seed={seed}"
        child.finish()
        damage(box, rng)
    m.restart()
    for name, data in content.items():
        assert m.read(f"main/{name}") == data, f"{name} after all rounds of --crash-seed={seed}"
