"""Rows of reading one large file: cold, warm, at random, first byte, memory, CPU, requests."""

import contextlib
import functools

from rows import Outcome, faster, rates, row, times
from world import CONNECTIONS, INFLIGHT, MIB, Sampler

READ = MIB  # bytes of a read()

FSSPEC = """
import json, sys, time
from huggingface_hub import HfFileSystem
fs, seconds = HfFileSystem(), time.monotonic()
with fs.open(sys.argv[1], "rb", block_size=16 << 20) as file:
    while file.read(1 << 20):
        pass
print(json.dumps(time.monotonic() - seconds))
"""
DOWNLOAD = """
import json, sys, time
from huggingface_hub import hf_hub_download
seconds = time.monotonic()
hf_hub_download(sys.argv[1], sys.argv[2])
print(json.dumps(time.monotonic() - seconds))
"""


def cold_read(world, size=None, *options):
    """Mount with an empty cache and read a large file once: (seconds, Sampler, requests)."""
    repo, path = world.large_file(size)
    with world.mount(repo, *options) as mount:
        mount.stat(path)
        since = world.hub.last_seq()
        with Sampler(mount.process.pid) as sampler:
            spent = world.reader("seq", mount.path(path), READ)["seconds"]
        return spent, sampler, world.seen(since)


@contextlib.contextmanager
def warm(world, *options, size=None):
    """A mount whose cache holds the large file, complete and verified: the mount and the file's path."""
    repo, path = world.large_file(size)
    cache = world.new_cache()
    world.shape(False)
    with world.mount(repo, cache=cache) as mount:
        world.reader("seq", mount.path(path), READ)
    world.shape()
    with world.mount(repo, *options, cache=cache) as mount:
        target = mount.path(path)
        world.reader("seq", target, READ)  # a block is checked at its first touch in a mount
        yield mount, target


def seconds_of(world, path):
    return world.reader("seq", path, READ)["seconds"]


@row("reread", "page-cache re-read, against ext4", goal=0.9)
def reread(world):
    disk = world.disk_file()
    with warm(world) as (mount, path), world.floor(like=mount) as floor:
        sides = {"hugfs": path, "ext4": disk, "floor": floor.dir + "/data"}
        for name, target in sides.items():  # pages that were read, not written
            world.drop(target, cache=mount.cache if name == "hugfs" else None)
            world.reader("seq", target, READ)
        runs = world.alternate(**{name: functools.partial(seconds_of, world, target)
                                  for name, target in sides.items()})
    return Outcome(faster(runs, "ext4"), runs, rates(runs, world.settings.size))


@row("warm-seq", "warm sequential read, page cache dropped, against ext4", goal=0.95, accounts=("root",))
def warm_sequential(world):
    disk = world.disk_file()
    with warm(world) as (mount, path):
        def ours():
            world.drop(path, cache=mount.cache)
            return world.reader("seq", path, READ)["seconds"]

        def theirs():
            world.drop(disk)
            return world.reader("seq", disk, READ)["seconds"]

        runs = world.alternate(hugfs=ours, ext4=theirs)
    return Outcome(faster(runs, "ext4"), runs, rates(runs, world.settings.size))


@row("warm-floor", "warm sequential read, page cache dropped, against the floor server", accounts=("user",))
def warm_floor(world):
    with warm(world) as (mount, path), world.floor(like=mount) as floor:
        def side(target, cache=None):
            world.drop(target, cache=cache)
            return world.reader("seq", target, READ)["seconds"]

        runs = world.alternate(hugfs=lambda: side(path, mount.cache), floor=lambda: side(floor.dir + "/data"))
    return Outcome(faster(runs, "floor"), runs, rates(runs, world.settings.size))


@row("warm-cpu", "warm sequential read from the cache: daemon CPU per GiB, against the floor server", goal=1.15,
     at_most=True)
def warm_cpu(world):
    with warm(world) as (mount, path), world.floor(like=mount) as floor:
        def side(process, target):
            world.drop(target)
            with Sampler(process.pid) as sampler:
                world.reader("seq", target, READ)
            return sampler.cpu * (1 << 30) / world.settings.size

        runs = world.alternate(hugfs=lambda: side(mount.process, path),
                               floor=lambda: side(floor, floor.dir + "/data"))
    return Outcome(min(runs["hugfs"]) / min(runs["floor"]), runs, times(runs, 1000, "ms/GiB"))


@row("cold-seq", "cold sequential read, against 8 parallel ranges of curl", goal=0.9)
def cold_sequential(world):
    repo, path = world.large_file()
    url, size = world.signed_url(repo, path), world.settings.size
    runs = world.alternate(hugfs=lambda: cold_read(world)[0],
                           curl=lambda: world.curl_ranges(url, size, CONNECTIONS))
    return Outcome(faster(runs, "curl"), runs, rates(runs, size))


@row("cold-clients", "cold sequential read, against the better of HfFileSystem and hf_hub_download", goal=1)
def cold_clients(world):
    repo, path = world.large_file()
    runs = world.alternate(hugfs=lambda: cold_read(world)[0],
                           HfFileSystem=lambda: world.script(FSSPEC, f"{repo.id}/{path}"),
                           hf_hub_download=lambda: world.script(DOWNLOAD, repo.id, path))
    ratio = min(min(runs["HfFileSystem"]), min(runs["hf_hub_download"])) / min(runs["hugfs"])
    return Outcome(ratio, runs, rates(runs, world.settings.size))


@row("cold-shaped", "cold sequential read, 40 ms and a cap per connection: of what 8 connections allow", goal=0.95,
     links=("shaped",))
def cold_shaped(world):
    repo, path = world.large_file()
    url, size = world.signed_url(repo, path), world.settings.size
    world.shape()
    runs = world.alternate(hugfs=lambda: cold_read(world)[0],
                           curl=lambda: world.curl_ranges(url, size, CONNECTIONS))
    allowed = size / (CONNECTIONS * world.settings.rate)
    return Outcome(allowed / min(runs["hugfs"]), runs, f"{rates(runs, size)}; allowed "
                   f"{CONNECTIONS * world.settings.rate / 1e9:.2f} GB/s")


@row("first-byte", "first 4 KiB of a cold 10 GB file: time against the three round trips that it takes", goal=1.25,
     at_most=True, links=("shaped",))
def first_byte(world):
    repo = world.box.repo()
    world.hub.lfs_sparse(repo.id, "huge.bin", 10**10)
    world.shape(capped=False)

    def side():
        with world.mount(repo) as mount:
            mount.stat("huge.bin")
            return world.reader("random", mount.path("huge.bin"), 1, 1, 4096, 1)["seconds"]

    runs = world.alternate(hugfs=side)
    trips = 3 * world.settings.rtt_s  # where it is, a connection to the data origin, the bytes
    return Outcome(min(runs["hugfs"]) / trips, runs, times(runs) + f"; 3 round trips are {trips * 1000:.0f} ms")


@row("first-byte-wire", "first 4 KiB of a cold 10 GB file: MiB on the wire", goal=1, at_most=True, counted=True)
def first_byte_wire(world):
    repo = world.box.repo()
    world.hub.lfs_sparse(repo.id, "huge.bin", 10**10)

    def side():
        with world.mount(repo) as mount:
            mount.stat("huge.bin")
            since = world.hub.last_seq()
            world.reader("random", mount.path("huge.bin"), 1, 1, 4096, 1)
            mount.unmount(60)
            return sum(request["sent"] for request in world.seen(since, origin="data")) / MIB

    runs = world.alternate(hugfs=side)
    return Outcome(max(runs["hugfs"]), runs)


def random_cold(world, count, readers):
    """Seconds of random 4 KiB reads, so many by each of `readers`, of a file that nobody has read."""
    repo = world.box.repo()
    world.hub.lfs_sparse(repo.id, "huge.bin", 10**10)
    with world.mount(repo) as mount:
        mount.stat("huge.bin")
        return world.reader("random", mount.path("huge.bin"), count * readers, readers, 4096, 7)["seconds"]


@row("random-cold", "cold random 4 KiB, 40 ms: 8 readers against one", goal=6, links=("shaped",))
def random_cold_readers(world):
    count = 10 if world.settings.quick else 25
    world.shape()
    runs = world.alternate(one=lambda: random_cold(world, count, 1), eight=lambda: random_cold(world, count, 8))
    return Outcome(8 * min(runs["one"]) / min(runs["eight"]), runs, times(runs, 1000 / count, "ms a read and reader"))


@contextlib.contextmanager
def against(world, mount):
    """What a warm file is held against: a file on the disk where the kernel may read the cache itself (root), else
    a file of the floor server: (its name in the table, its path)."""
    if world.account.is_root:
        yield "ext4", world.disk_file()
        return
    with world.floor(like=mount) as floor:
        yield "floor", floor.dir + "/data"


def random_warm(readers, shared=False):
    """The row of so many readers: second pass of random 4 KiB reads, in seconds a read."""
    name = f"random-warm-{readers}" + ("-shared" if shared else "")
    what = f"second pass of random 4 KiB reads, {readers} " + ("threads on one descriptor" if shared else
                                                               "reader" + "s" * (readers > 1))

    @row(name, what + ", against ext4 (root) or the floor server (user)", goal=0.8)
    def measure(world):
        count = 40_000 if world.settings.quick else 100_000
        words = [count, readers, 4096, 11, *(["shared"] if shared else [])]

        def side(target, cache=None):
            world.drop(target, cache=cache)
            world.reader("random", target, *words)
            return world.reader("random", target, *words)["seconds"] / count

        with warm(world) as (mount, path), against(world, mount) as (other, target):
            since = world.hub.last_seq()
            runs = world.alternate(**{"hugfs": lambda: side(path, mount.cache), other: lambda: side(target)})
            asked = len(world.seen(since))
        return Outcome(faster(runs, other), runs, times(runs, 1e6, "us a read") + f"; {asked} requests")
    return measure


for _readers in (1, 4, 8, 32):
    random_warm(_readers)
random_warm(8, shared=True)


@row("random-dropped", "random 4 KiB reads of a cached file, page cache dropped, 8 readers, against ext4", goal=0.8,
     accounts=("root",))
def random_dropped(world):
    disk, count = world.disk_file(), 1000 if world.settings.quick else 4000
    with warm(world) as (mount, path):
        def ours():
            world.drop(path, cache=mount.cache)
            return world.reader("random", path, count, 8, 4096, 13)["seconds"]

        def theirs():
            world.drop(disk)
            return world.reader("random", disk, count, 8, 4096, 13)["seconds"]

        runs = world.alternate(hugfs=ours, ext4=theirs)
    return Outcome(faster(runs, "ext4"), runs, times(runs, 1e6 / count, "us a read"))


def mapped(threads):
    @row(f"mmap-{threads}", f"cold load of a safetensors file by mmap, {threads} thread" + "s" * (threads > 1) +
         ": time against a cold sequential read", goal=1.2, at_most=True)
    def measure(world):
        repo, path = world.large_file()

        def load():
            with world.mount(repo) as mount:
                mount.stat(path)
                return world.reader("mmap", mount.path(path), threads)["seconds"]

        runs = world.alternate(mmap=load, read=lambda: cold_read(world)[0])
        return Outcome(min(runs["mmap"]) / min(runs["read"]), runs, rates(runs, world.settings.size))
    return measure


for _threads in (1, 8):
    mapped(_threads)


@row("memory", "peak of anonymous memory with 256 readers of a cold file, against the cap of 256 MiB + 64 MiB", goal=1,
     at_most=True, counted=True)
def memory(world):
    repo = world.box.repo()
    world.hub.lfs_sparse(repo.id, "huge.bin", 10**10)

    def side():
        with world.mount(repo) as mount, Sampler(mount.process.pid) as sampler:
            world.reader("random", mount.path("huge.bin"), 512, 256, MIB, 3)
        return sampler.peak / MIB

    runs = world.alternate(hugfs=side)
    return Outcome(max(runs["hugfs"]) * MIB / (INFLIGHT + 64 * MIB), runs, f"{max(runs['hugfs']):.0f} MiB")


@row("cold-cpu", "cold sequential read: daemon CPU, seconds per GiB")
def cold_cpu(world):
    runs = world.alternate(hugfs=lambda: cold_read(world)[1].cpu * (1 << 30) / world.settings.size)
    return Outcome(min(runs["hugfs"]), runs, times(runs, 1, "s/GiB"))


@row("requests", "cold sequential read: resolves of the Hub", goal=1, at_most=True, counted=True)
def requests(world):
    found = {"resolves": [], "ranges": [], "on the wire": []}
    for _ in range(2):
        seen = cold_read(world)[2]
        data = [request for request in seen if request["origin"] == "data"]
        found["resolves"].append(sum("/resolve" in request["path"] for request in seen))
        found["ranges"].append(len(data))
        found["on the wire"].append(sum(request["sent"] for request in data) / world.settings.size)
    return Outcome(max(found["resolves"]), found, f"{max(found['ranges'])} ranges, "
                   f"{max(found['on the wire']):.3f} of the file's size on the wire")
