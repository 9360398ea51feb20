"""Rows of many names: 100,000 files in 100 folders, 1,000,000 in one."""

import contextlib
import shutil
import subprocess
import time

from rows import Outcome, row, times
from world import Sampler

MEASURED = {}
FIND, DU, LS, LSL = ["find", "-type", "f", "-size", "+0"], ["du", "-s"], ["ls", "-U"], ["ls", "-lR"]


def many(world, files, per_folder=None):
    """A repository with so many files in its folder `data`."""
    repo = world.box.repo()
    world.hub.many_files(repo.id, "data", files, per_folder=per_folder)
    return repo


@contextlib.contextmanager
def on_disk(world, files, per_folder=None):
    """A folder on the disk with the same names."""
    base = world.box.folder(f"names-{next(world.numbers)}")
    per = per_folder or files
    code = "import os, sys\nbase, files, per, flat = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]\n" \
           "for number in range(files):\n" \
           "    folder = base if flat == '1' else os.path.join(base, 'd%05d' % (number // per))\n" \
           "    if flat == '0' and number % per == 0: os.mkdir(folder)\n" \
           "    with open(os.path.join(folder, 'f%07d.txt' % number), 'w') as file: file.write('content\\n')\n"
    world.box.run(["python3", "-c", code, base, str(files), str(per), "0" if per_folder else "1"], timeout=600)
    try:
        yield base
    finally:
        shutil.rmtree(base)


def walk(world, argv, folder):
    """Seconds of a command in a folder, its output thrown away."""
    words = [argv[0], folder, *argv[1:]] if argv[0] == "find" else [*argv, folder]
    began = time.monotonic()
    process = world.account.popen(words, stdout=subprocess.DEVNULL, env=world.box.env(), cwd=world.box.dir)
    if process.wait(600) != 0:
        raise RuntimeError(f"{words} failed")
    return time.monotonic() - began


def pages(world, since):
    return sum("/tree/" in request["path"] for request in world.seen(since))


def hundred(world):
    return 20_000 if world.settings.quick else 100_000


def million(world):
    return 100_000 if world.settings.quick else 1_000_000


@row("names-pages", "100,000 files, cold: pages of listings, of those that the API needs; after a remount none",
     goal=1, at_most=True, counted=True)
def names_pages(world):
    files = hundred(world)
    repo, cache = many(world, files, 1000), world.new_cache()
    found = []
    for _ in range(2):
        with world.mount(repo, cache=cache) as mount:
            since = world.hub.last_seq()
            walk(world, FIND, mount.path("data"))
            found.append(pages(world, since))
    needed = files // 1000 + 1  # one a folder, and the one that holds them
    ratio = found[0] / needed if found[1] == 0 else float(found[1])
    return Outcome(ratio, {"cold": found[:1], "remounted": found[1:], "needed": [needed]},
                   f"{found[0]} pages, {needed} are needed; after a remount {found[1]}")


def warm_names(name, argv, *options):
    how = f"`{' '.join(argv)}`" + (" with noxattr" if options else "")

    @row(f"names-{name}", f"100,000 files, warm {how}: time against ext4", goal=1.5, at_most=True)
    def measure(world):
        files = hundred(world)
        repo = many(world, files, 1000)
        with on_disk(world, files, 1000) as disk, world.mount(repo, *options) as mount:
            for folder in (mount.path("data"), disk):
                walk(world, argv, folder)
            runs = world.alternate(hugfs=lambda: walk(world, argv, mount.path("data")),
                                   ext4=lambda: walk(world, argv, disk))
        return Outcome(min(runs["hugfs"]) / min(runs["ext4"]), runs, times(runs))
    return measure


warm_names("find", FIND)
warm_names("du", DU)
warm_names("ls", LSL, "noxattr")


def first_and_again(world, argv):
    """Of a listing that an earlier mount has saved: ({side: [first seconds]}, {side: [again]}, bytes an entry).
    Two rows share what one measurement gives."""
    key = world.settings, world.account.name, argv[0]
    if key not in MEASURED:
        MEASURED[key] = measure_million(world, argv)
    return MEASURED[key]


def measure_million(world, argv):
    files = million(world)
    repo, cache = many(world, files), world.new_cache()
    with world.mount(repo, cache=cache) as mount:
        walk(world, LS, mount.path("data"))
    first, again, weights = {"hugfs": [], "ext4": []}, {"hugfs": [], "ext4": []}, []
    with on_disk(world, files) as disk:
        for _ in range(min(world.settings.runs, 3)):
            with world.mount(repo, cache=cache) as mount:
                with Sampler(mount.process.pid) as sampler:
                    before = sampler.peak
                    first["hugfs"].append(walk(world, argv, mount.path("data")))
                    again["hugfs"].append(walk(world, argv, mount.path("data")))
                weights.append((sampler.now() - before) / files)
            first["ext4"].append(walk(world, argv, disk))
            again["ext4"].append(walk(world, argv, disk))
    return first, again, weights


@row("million-ls", "1,000,000 files in one folder, saved listing: first `ls -U`, time against ext4", goal=8,
     at_most=True)
def million_ls(world):
    first, again, _ = first_and_again(world, LS)
    return Outcome(min(first["hugfs"]) / min(first["ext4"]), first, times(first))


@row("million-ls-again", "1,000,000 files in one folder: `ls -U` again, time against ext4", goal=1.5, at_most=True)
def million_ls_again(world):
    first, again, _ = first_and_again(world, LS)
    return Outcome(min(again["hugfs"]) / min(again["ext4"]), again, times(again))


@row("million-du", "1,000,000 files in one folder, saved listing: `du`, time against ext4", goal=8, at_most=True)
def million_du(world):
    first, _, _ = first_and_again(world, DU)
    return Outcome(min(first["hugfs"]) / min(first["ext4"]), first, times(first))


@row("million-memory", "1,000,000 files in one folder: bytes of daemon memory an entry after `du`", goal=150,
     at_most=True)
def million_memory(world):
    _, _, weights = first_and_again(world, DU)
    return Outcome(max(weights), {"hugfs": weights})
