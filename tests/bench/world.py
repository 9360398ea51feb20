"""Where the rows of tests/bench run: the test Hub, mounts of the real daemon, a floor server, and files on the disk.

Built on the harness of the mount tests, so that what they check (no unexpected warning, nothing left behind) holds
here too. All readers run as the account under test.
"""

import contextlib
import glob
import hashlib
import itertools
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(SOURCE, "tests", "mount"), os.path.join(SOURCE, "tests", "hub")]

import harness  # noqa: E402

MIB = 1 << 20
BUILD = os.path.join(SOURCE, "build-bench")
LIMIT_S = 1500  # the longest that a mount may live
INFLIGHT = 256 * MIB  # the default of -o inflight
CONNECTIONS = 8  # the default of -o workers


class Settings:
    """What the command line chose: `size` of the large file, `runs` of each side; `rtt_s` and `rate` (bytes a second
    of a data connection) of the shaped link."""

    def __init__(self, quick, link, runs=None):
        self.quick = quick
        self.link = link
        self.runs = runs or (2 if quick else 5)
        self.size = (256 if quick else 1024) * MIB
        self.rtt_s = 0.040
        self.rate = 12_500_000


def run_quietly(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def build():
    """Build the release binary and the two helpers; the path of the binary."""
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        run_quietly("meson", "setup", BUILD, SOURCE, "--buildtype=release")
    run_quietly("meson", "compile", "-C", BUILD, "hugfs")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True)
    for name in ("reader", "floor"):
        source, target = os.path.join(HERE, name + ".c"), os.path.join(BUILD, name)
        if not os.path.exists(target) or os.path.getmtime(target) < os.path.getmtime(source):
            subprocess.run(["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-D_GNU_SOURCE",
                            source, "-o", target, "-pthread", *flags.stdout.split()], check=True)
    return os.path.join(BUILD, "fs", "hugfs")


def content(size):
    """(path, SHA-256) of random bytes that are kept between runs."""
    path = os.path.join(BUILD, f"content-{size}")
    if not os.path.exists(path + ".sha256"):
        digest, left = hashlib.sha256(), size
        with open(path, "wb") as file:
            while left:
                piece = os.urandom(min(left, 16 * MIB))
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
        with open(path + ".sha256", "w", encoding="ascii") as file:
            file.write(digest.hexdigest())
    with open(path + ".sha256", encoding="ascii") as file:
        return path, file.read()


class Sampler:
    """The peak of a process's anonymous memory and its CPU time while the `with` lasts."""

    def __init__(self, pid):
        self.pid = pid
        self.peak = self.now()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def now(self):
        """Bytes of anonymous memory at this moment."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

    def _ticks(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _watch(self):
        while not self.stop.wait(0.01):
            self.peak = max(self.peak, self.now())

    def __enter__(self):
        self.began = self._ticks()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.cpu = self._ticks() - self.began


class World:
    """Everything for the rows of one account on one link."""

    def __init__(self, settings, session, account):
        self.settings = settings
        self.account = account
        self.box = harness.Box(session, account, LIMIT_S)
        self.hub = self.box.hub
        self.numbers = itertools.count(1)
        self.files = {}

    def close(self):
        """End everything; what was wrong, as a list."""
        return self.box.close()

    # Repositories and files

    def shape(self, on=True, capped=True):
        """Make the line long and (`capped`) narrow, or undo that while a row prepares itself. The bare link has no
        shape."""
        if self.settings.link == "shaped":
            self.hub.config(data_rate=self.settings.rate if on and capped else 0,
                            round_trip_ms=round(self.settings.rtt_s * 1000) if on else 0)

    def large_file(self, size=None):
        """(repo, path) of a file of random bytes with its true SHA-256; one for each size."""
        size = size or self.settings.size
        if size not in self.files:
            path, digest = content(size)
            repo = self.box.repo()
            self.hub.lfs_sparse(repo.id, "weights.safetensors", size, oid=digest)
            stored = self.hub.lfs_path(repo.id, "weights.safetensors")
            os.unlink(stored)
            link_or_copy(path, stored)
            subprocess.run(["cat", stored], check=True, stdout=subprocess.DEVNULL)  # into the page cache
            self.files[size] = repo, "weights.safetensors"
        return self.files[size]

    def disk_file(self, size=None):
        """The same bytes as a file on the disk under the caches, which is the account's."""
        size = size or self.settings.size
        path = os.path.join(self.box.dir, f"disk-{size}")
        if not os.path.exists(path):
            shutil.copyfile(content(size)[0], path)
            os.chown(path, self.account.uid, self.account.gid)
            fsync(path)
        return path

    # Mounts

    @contextlib.contextmanager
    def mount(self, repo, *options, cache=None, env=None):
        """A mount of a repository's main branch with a cache of its own (or the named folder), gone afterwards."""
        name = f"b{next(self.numbers)}"
        folder = cache or self.box.folder(name + "-cache", 0o700)
        mount = self.box.mount(f"{repo.uri}@main", f"cache_dir={folder}", *options, name=name, env=env)
        mount.cache = folder
        try:
            yield mount
        finally:
            mount.unmount(60)
            if not cache:
                shutil.rmtree(folder)

    def new_cache(self):
        return self.box.folder(f"cache-{next(self.numbers)}", 0o700)

    @contextlib.contextmanager
    def floor(self, size=None, like=None):
        """A floor server with a file of that size; as root with the read-ahead of the mount `like`."""
        name = f"b{next(self.numbers)}"
        point, folder = self.box.folder(name), self.box.folder(name + "-files", 0o700)
        argv = [self.program("floor"), point, str(size or self.settings.size), folder]
        process = self.account.popen(argv, cwd="/")
        process.dir, process.files = point, folder
        try:
            harness.eventually(lambda: point in harness.mounts(), 20, "the floor server's mount")
            if like and self.account.is_root:
                copy_read_ahead(like.dir, point)
            yield process
        finally:
            self.box.run(["umount" if self.account.is_root else "fusermount3",
                          *([] if self.account.is_root else ["-u"]), point])
            process.wait(20)
            shutil.rmtree(folder)

    # Measuring

    def program(self, name):
        """The path of reader or floor, beside the copy of hugfs that every account can reach."""
        return os.path.join(os.path.dirname(self.box.session.binary), name)

    def reader(self, *words, timeout=600):
        """Run reader.c as the account; what it measured."""
        out = self.box.run([self.program("reader"), *map(str, words)], timeout=timeout).out
        return json.loads(out) if out else None

    def start_reader(self, *words):
        """The same without waiting for its end: the process."""
        return self.account.popen([self.program("reader"), *map(str, words)], stdout=subprocess.DEVNULL,
                                  env=self.box.env(), cwd=self.box.dir)

    def drop(self, *paths, cache=None):
        """Take files out of the page cache, and with `cache` the files of that cache folder."""
        found = [*paths]
        if cache:
            found += [path for path in glob.glob(cache + "/**", recursive=True) if os.path.isfile(path)]
            for path in found[len(paths):]:
                fsync(path)
        self.reader("drop", *found)

    def script(self, code, *arguments, timeout=600, inside=False):
        """Run Python with the official client's environment; what it printed, decoded. As ourselves, for no other
        account need be able to reach the virtual environment; but `inside` a mount as its user."""
        home = self.box.folder(f"home-{next(self.numbers)}", 0o700)
        clean = {"HF_HOME": home, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
                 "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        try:
            out = self.box.run([sys.executable, "-c", code, *map(str, arguments)], env=clean, timeout=timeout,
                               as_root=os.getuid() == 0 and not inside).out
        finally:
            shutil.rmtree(home)
        return json.loads(out.splitlines()[-1])

    def alternate(self, **sides):
        """Run each side in turn, as often as the settings say; {name: [what each run returned]}."""
        found = {name: [] for name in sides}
        for _ in range(self.settings.runs):
            for name, side in sides.items():
                found[name].append(side())
        return found

    def signed_url(self, repo, path):
        return self.hub.request("HEAD", f"/{repo.id}/resolve/main/{path}").headers["location"]

    def curl_ranges(self, url, size, parts):
        """The seconds that `parts` curls at once take, each with its range into a file of its own on the disk."""
        folder = self.box.folder(f"curl-{next(self.numbers)}", 0o700)
        bounds = [size * number // parts for number in range(parts + 1)]
        began = time.monotonic()
        curls = [self.account.popen(["curl", "-sSf", "-o", f"{folder}/{first}", "-r", f"{first}-{after - 1}", url])
                 for first, after in zip(bounds, bounds[1:])]
        failed = any([curl.wait() for curl in curls])
        spent = time.monotonic() - began
        shutil.rmtree(folder)
        if failed:
            raise RuntimeError("a curl failed")
        return spent

    def seen(self, since, **wanted):
        return self.hub.requests(since, **wanted)


def link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_read_ahead(model, point):
    """Give one mount the kernel's read-ahead of another."""
    def knob(path):
        minor = harness.mounts()[path][0]
        return f"/sys/class/bdi/0:{minor}/read_ahead_kb"

    with open(knob(model), encoding="ascii") as source, open(knob(point), "w", encoding="ascii") as target:
        target.write(source.read())


@contextlib.contextmanager
def session(binary):
    """The Hub and what else all worlds of one link share (as conftest.py of the mount tests makes it)."""
    with tempfile.TemporaryDirectory(prefix="hugfs-bench-") as folder, harness.Hub(root=folder + "/hub") as hub:
        os.chmod(folder, 0o755)
        for name in ("reader", "floor"):
            shutil.copy2(os.path.join(BUILD, name), folder)
        connections = os.path.join(folder, "connections")
        os.mkdir(connections)
        if os.getuid() == 0:
            subprocess.run(["mount", "-t", "fusectl", "fusectl", connections], check=True)
        try:
            yield harness.Session(binary, hub, None, connections, folder)
        finally:
            if os.getuid() == 0:
                subprocess.run(["umount", connections], check=True)


def account(name):
    """The account that a name on the command line means; the ordinary user is made if it is missing."""
    if os.getuid() != 0 or name == "root":
        return harness.Account(pwd.getpwuid(os.getuid()).pw_name)
    return harness.ordinary_user()
