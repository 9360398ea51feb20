"""Rows of writing: a copy into the mount until close, and publication."""

import collections
import hashlib
import os
import shutil
import time

from rows import Outcome, faster, rates, row, times
from world import CONNECTIONS, MIB, content, fsync


def copy(world, source, target):
    """Seconds of `cp`, which ends when its close has returned."""
    began = time.monotonic()
    world.box.run(["cp", source, target], timeout=300)
    return time.monotonic() - began


def copy_to_disk(world, source):
    target = os.path.join(world.box.dir, f"copy-{next(world.numbers)}")
    spent = copy(world, source, target)
    world.box.run(["rm", target])
    return spent


def copy_to_mount(world, repo, source):
    """Into a mount with the usual options; what is staged is thrown away before it would be published."""
    with world.mount(repo) as mount:
        mount.ls()
        spent = copy(world, source, mount.path("new.safetensors"))
        world.box.hugfs("discard", "-y", mount.path(), timeout=120)
        return spent


def copy_to_floor(world, source):
    with world.floor() as floor:
        return copy(world, source, floor.dir + "/new.safetensors")


@row("cp-in", "`cp` into the mount until close, against `cp` to ext4", goal=0.8)
def copy_in(world):
    source, repo = world.disk_file(), world.box.repo()
    runs = world.alternate(hugfs=lambda: copy_to_mount(world, repo, source), ext4=lambda: copy_to_disk(world, source))
    return Outcome(faster(runs, "ext4"), runs, rates(runs, world.settings.size))


@row("cp-in-floor", "`cp` into the mount until close, against a FUSE server that only does pwrite", goal=0.9)
def copy_in_floor(world):
    source, repo = world.disk_file(), world.box.repo()
    runs = world.alternate(hugfs=lambda: copy_to_mount(world, repo, source),
                           floor=lambda: copy_to_floor(world, source))
    return Outcome(faster(runs, "floor"), runs, rates(runs, world.settings.size))


def fresh_file(world, size):
    """(path, SHA-256) of a file that the Hub does not have."""
    path = os.path.join(world.box.dir, f"fresh-{next(world.numbers)}")
    shutil.copyfile(content(size)[0], path)
    with open(path, "r+b") as file:
        file.write(os.urandom(64))
    os.chown(path, world.account.uid, world.account.gid)
    fsync(path)
    with open(path, "rb") as file:
        return path, hashlib.file_digest(file, "sha256").hexdigest()


def publish(world, repo, size, calls):
    """Seconds of `hugfs commit` of one new file, right after it was copied in."""
    path, _ = fresh_file(world, size)
    with world.mount(repo, "commit=manual") as mount:
        mount.ls()
        copy(world, path, mount.path(os.path.basename(path) + ".safetensors"))
        since, began = world.hub.last_seq(), time.monotonic()
        world.box.hugfs("commit", mount.path(), timeout=300)
        spent = time.monotonic() - began
        calls.append([request["path"].rpartition("/")[2] for request in world.seen(since)
                      if request["method"] != "GET"])
    os.unlink(path)
    return spent


def send(world, repo, size):
    """Seconds of the same upload by curl: where the parts go is asked for before."""
    path, digest = fresh_file(world, size)
    answer = world.hub.call("POST", f"/{repo.id}.git/info/lfs/objects/batch",
                            {"operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha_256",
                             "objects": [{"oid": digest, "size": size}]})
    upload = answer["objects"][0]["actions"]["upload"]
    chunk = int(upload.get("header", {}).get("chunk_size", size))
    names = sorted(name for name in upload.get("header", {}) if name.isdigit())
    urls = [upload["header"][name] for name in names] or [upload["href"]]
    world.box.run(["split", "-b", str(chunk), "-d", "-a", "5", path, path + ".part-"])
    parts = sorted(os.path.join(world.box.dir, name) for name in os.listdir(world.box.dir)
                   if name.startswith(os.path.basename(path) + ".part-"))
    waiting, running = list(zip(parts, urls, strict=True)), []
    began = time.monotonic()
    while waiting or running:
        while waiting and len(running) < CONNECTIONS:
            part, url = waiting.pop(0)
            running.append(world.account.popen(["curl", "-sSf", "-o", os.devnull, "-H", "Expect:", "-T", part, url]))
        if running.pop(0).wait() != 0:
            raise RuntimeError("a curl failed")
    spent = time.monotonic() - began
    for name in [path, *parts]:
        os.unlink(name)
    return spent


@row("publish", "publication of one large file, against curl sending the same parts in parallel: time", goal=1.1,
     at_most=True)
def publication(world):
    size, repo, calls = (64 if world.settings.quick else 512) * MIB, world.box.repo(), []
    runs = world.alternate(hugfs=lambda: publish(world, repo, size, calls), curl=lambda: send(world, repo, size))
    others = [name for name in calls[-1] if not name.isdigit()]
    return Outcome(min(runs["hugfs"]) / min(runs["curl"]), runs, f"{times(runs)}; {len(calls[-1])} calls that write, "
                   f"beside the parts: {' '.join(others)}")


@row("publish-many", "publication of 1,000 small files: calls", goal=6, at_most=True)
def publication_of_many(world):
    repo, found, spent = world.box.repo(), [], []
    folder = world.box.folder(f"small-{next(world.numbers)}")
    for number in range(1000):
        with open(os.path.join(folder, f"f{number:04d}.txt"), "w", encoding="ascii") as file:
            file.write(f"file {number}\n")
    for _ in range(2):
        with world.mount(repo, "commit=manual") as mount:
            mount.ls()
            world.box.run(["cp", "-r", folder, mount.path(f"d{next(world.numbers)}")], timeout=120)
            since, began = world.hub.last_seq(), time.monotonic()
            world.box.hugfs("commit", mount.path(), timeout=300)
            spent.append(time.monotonic() - began)
            names = [request["path"].rpartition(repo.id)[2] for request in world.seen(since)]
            found.append(len(names))
    counts = ", ".join(f"{count} {name}" for name, count in collections.Counter(names).items())
    return Outcome(max(found), {"calls": found, "seconds": spent}, f"{min(spent):.2f} s; {counts}")
