"""Rows of how programs read: parquet, safetensors headers, dataloaders, and reads while the data origin is stuck."""

import io
import json
import struct

from rows import Outcome, faster, row, times
from rows_read import READ, cold_read
from world import MIB

PARQUET = """
import json, os, sys, time
import pyarrow.parquet
seconds = time.monotonic()
with open(sys.argv[1], "rb") as file:
    found = pyarrow.parquet.ParquetFile(file)
    rows = sum(len(found.read_row_group(group, columns=["c3"])) for group in range(found.num_row_groups))
print(json.dumps([time.monotonic() - seconds, rows]))
"""
PARQUET_FSSPEC = PARQUET.replace("with open(", "with fs.open(").replace(
    "seconds =", "from huggingface_hub import HfFileSystem\nfs = HfFileSystem()\nseconds =", 1)
HEADERS = """
import json, os, sys, time
from safetensors import safe_open
seconds, keys = time.monotonic(), 0
for name in sorted(os.listdir(sys.argv[1])):
    if name.endswith(".safetensors"):
        with safe_open(os.path.join(sys.argv[1], name), framework="numpy") as file:
            keys += len(file.keys())
print(json.dumps([time.monotonic() - seconds, keys]))
"""
LOADERS = """
import json, os, random, sys, time
path, workers, record = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
size, children = os.path.getsize(path), []
order = list(range(size // record))
random.Random(1).shuffle(order)
seconds = time.monotonic()
for worker in range(workers):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(path, "rb", buffering=0) as file:
                for place in order[worker::workers]:
                    assert len(os.pread(file.fileno(), record, place * record)) == record
            status = 0
        finally:
            os._exit(status)
    children.append(child)
assert not any([os.waitpid(child, 0)[1] for child in children])
print(json.dumps(time.monotonic() - seconds))
"""
PROBE = """
import json, os, sys, time
base, count, cached = sys.argv[1], int(sys.argv[2]), os.open(sys.argv[3], os.O_RDONLY)
size, spent = os.fstat(cached).st_size, []
for number in range(count):
    at = number * 7919 * 4096 % (size - 4096)
    os.posix_fadvise(cached, at, 4096, os.POSIX_FADV_DONTNEED)
    folder = os.path.join(base, "d%05d" % number)
    began = time.monotonic()
    names = os.listdir(folder)
    os.stat(os.path.join(folder, names[0]))
    os.pread(cached, 4096, at)
    spent.append(time.monotonic() - began)
spent.sort()
print(json.dumps(spent[len(spent) * 99 // 100]))
"""


def table_file(world):
    """A repository with a parquet file of ten columns, of which one will be read; (repo, path, its size)."""
    import numpy
    import pyarrow
    import pyarrow.parquet
    rows = 400_000 if world.settings.quick else 2_000_000
    columns = {f"c{number}": numpy.random.default_rng(number).random(rows) for number in range(10)}
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), data, row_group_size=rows // 8, compression="none")
    repo = world.box.repo()
    repo.push({"table.parquet": data.getvalue()})
    return repo, "table.parquet", rows


@row("parquet", "parquet on the shaped link: footer, then one of ten columns, against HfFileSystem", goal=1,
     links=("shaped",))
def parquet(world):
    repo, path, rows = table_file(world)
    world.shape()
    wire = []

    def ours():
        with world.mount(repo) as mount:
            mount.stat(path)
            since = world.hub.last_seq()
            seconds, read = world.script(PARQUET, mount.path(path), inside=True)
            wire.append(sum(request["sent"] for request in world.seen(since, origin="data")))
        assert read == rows
        return seconds

    def theirs():
        seconds, read = world.script(PARQUET_FSSPEC, f"{repo.id}/{path}")
        assert read == rows
        return seconds

    runs = world.alternate(hugfs=ours, HfFileSystem=theirs)
    return Outcome(faster(runs, "HfFileSystem"), runs,
                   f"{times(runs)}; {min(wire) / MIB:.1f} MiB on the wire for a column of {rows * 8 / MIB:.1f}")


def safetensors(seed, size):
    """The bytes of a safetensors file with 200 tensors of equal size."""
    each = size // 200 // 4 * 4
    header = json.dumps({f"layers.{number}.weight": {"dtype": "F32", "shape": [each // 4], "data_offsets":
                                                     [number * each, (number + 1) * each]} for number in range(200)})
    header += " " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header.encode() + bytes([seed]) * (200 * each)


@row("headers", "headers of 50 safetensors files: MiB on the wire a file", goal=1, at_most=True, counted=True)
def headers(world):
    repo = world.box.repo()
    repo.push({f"model-{number:05d}.safetensors": safetensors(number, 8 * MIB) for number in range(50)})

    def side():
        with world.mount(repo) as mount:
            mount.ls()
            since = world.hub.last_seq()
            seconds, keys = world.script(HEADERS, mount.path(), inside=True)
            mount.unmount(60)
            assert keys == 50 * 200
            return sum(request["sent"] for request in world.seen(since, origin="data")) / 50 / MIB

    runs = world.alternate(hugfs=side)
    return Outcome(max(runs["hugfs"]), runs)


@row("dataloaders", "64 dataloader workers, cold, every 128 KiB record once in random order: bytes on the wire, "
     "of the file's size", goal=1.1, at_most=True, counted=True)
def dataloaders(world):
    repo, path = world.large_file(256 * MIB)
    wire, seconds = [], []
    for _ in range(2):
        with world.mount(repo) as mount:
            mount.stat(path)
            since = world.hub.last_seq()
            seconds.append(world.script(LOADERS, mount.path(path), 64, 128 << 10, inside=True))
            wire.append(sum(request["sent"] for request in world.seen(since, origin="data")) / (256 * MIB))
    straight = cold_read(world, 256 * MIB)[0]
    return Outcome(max(wire), {"on the wire": wire, "seconds": seconds, "in order": [straight]},
                   f"{min(seconds):.2f} s; in order, by one reader {straight:.2f} s")


@row("slow-data", "every data connection stalled, 64 readers waiting: p99 of ls, stat and cached reads, against the "
     "same unstalled", goal=3, at_most=True)
def slow_data(world):
    repo, path = world.large_file(256 * MIB)
    count, runs = 200, {"stalled": [], "flowing": []}
    world.hub.lfs_sparse(repo.id, "huge.bin", 10**10)
    world.hub.many_files(repo.id, f"folders-{next(world.numbers)}", count * 5, per_folder=5)
    folders = f"folders-{next(world.numbers) - 1}"
    for name, stalled in (("flowing", False), ("stalled", True)) * min(world.settings.runs, 3):
        with world.mount(repo) as mount:
            world.reader("seq", mount.path(path), READ)
            if stalled:
                world.hub.fault(origin="data", method="GET", stall=True, times=-1)
            readers = world.start_reader("random", mount.path("huge.bin"), 256, 64, 4096, 5)
            runs[name].append(world.script(PROBE, mount.path(folders), count, mount.path(path), inside=True))
            if stalled:
                assert readers.poll() is None, "the stalled readers ended"
            world.hub.clear_faults()
            assert readers.wait(120) == 0
    return Outcome(min(runs["stalled"]) / min(runs["flowing"]), runs, times(runs))


@row("requests-random", "10,000 random reads of a cold file: resolves", goal=2, at_most=True, counted=True)
def requests_random(world):
    repo, path = world.large_file(256 * MIB)
    found = []
    for _ in range(2):
        with world.mount(repo) as mount:
            mount.stat(path)
            since = world.hub.last_seq()
            world.reader("random", mount.path(path), 10_000, 8, 4096, 17)
            found.append(sum("/resolve" in request["path"] for request in world.seen(since)))
    return Outcome(max(found), {"hugfs": found})


@row("requests-again", "second pass of 10,000 random reads, and a second mount's: requests for bytes", goal=0,
     at_most=True, counted=True)
def requests_again(world):
    repo, path = world.large_file(256 * MIB)
    cache, found = world.new_cache(), []
    for _ in range(2):
        with world.mount(repo, cache=cache) as mount:
            if not found:
                world.reader("random", mount.path(path), 10_000, 8, 4096, 17)
            world.drop(mount.path(path))
            since = world.hub.last_seq()
            world.reader("random", mount.path(path), 10_000, 8, 4096, 17)
            found.append(sum(request["origin"] == "data" or "/resolve" in request["path"]
                             for request in world.seen(since)))
    return Outcome(max(found), {"hugfs": found})


@row("two-mounts", "two mounts read the same cold file at once: bytes on the wire, of its size", goal=1.02,
     at_most=True, counted=True)
def two_mounts(world):
    repo, path = world.large_file(256 * MIB)
    found = []
    for _ in range(2):
        cache = world.new_cache()
        with world.mount(repo, cache=cache) as one, world.mount(repo, cache=cache) as other:
            since = world.hub.last_seq()
            readers = [world.start_reader("seq", mount.path(path), READ) for mount in (one, other)]
            assert [reader.wait(120) for reader in readers] == [0, 0]
            found.append(sum(request["sent"] for request in world.seen(since, origin="data")) / (256 * MIB))
    return Outcome(max(found), {"hugfs": found})
