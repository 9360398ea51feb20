"""The real daemon on the test Hub: worlds ("boxes") with a home of their own, mounts with a watchdog, and
file operations in child processes, so that a file system that hangs never hangs pytest.

A `Box` is one test's world: who it runs as, its HOME, cache, staging and runtime directories, its mounts. A
`Mount` is one mountpoint in it, which may have had several daemons one after the other. A `Repo` is a
repository on the Hub with what its git holds.
"""

import collections
import io
import itertools
import json
import os
import pwd
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time

import client

PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")  # one that every user may run
ORDINARY_USER = "hugfstest"
LOG_LINE = re.compile(r"hugfs: \d\d:\d\d:\d\d\.\d{3} (err|warn|info|debug) \w+: ")
SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|X-Amz-Signature")
PRELUDE = """\
import errno, mmap, os, sys, time
def outcome(call, *args):
    try:
        call(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "0"
def say(*words):
    print(*words, flush=True)
def hear():
    return sys.stdin.readline().strip()
os.chdir(os.environ["MNT"])
"""


def noise(size, seed=1):
    """Bytes that no compression or deduplication makes smaller; the same for the same seed."""
    return random.Random(seed).randbytes(size)


def data_requests(hub, seq):
    """What was asked of the data origin since then."""
    return hub.requests(since=seq, origin="data")


def data_bytes(hub, seq):
    return sum(item["sent"] for item in data_requests(hub, seq))


def eventually(condition, timeout=20, what="the condition"):
    """Wait until `condition()` is true and return its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(0.02)


def mounts():
    """{mountpoint: (device minor, options, type, source)} of this machine, the topmost of each."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, right = line.rstrip("\n").split(" - ", 1)
            device, options = left.split(" ")[2], left.split(" ")[5]
            point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), left.split(" ")[4])
            found[point] = (device.split(":")[1], options, *right.split(" ")[:2])
    return found


class Account:
    """Who the daemon and the file operations of a test run as."""

    def __init__(self, name):
        entry = pwd.getpwnam(name)
        self.name, self.uid, self.gid = name, entry.pw_uid, entry.pw_gid
        self.is_root = self.uid == 0

    def popen(self, argv, **options):
        if self.uid != os.getuid():
            options.update(user=self.uid, group=self.gid, extra_groups=[])
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([os.fspath(word) for word in argv], start_new_session=True, **options)


def ordinary_user():
    """The account without privileges; made if it is missing."""
    try:
        pwd.getpwnam(ORDINARY_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin",
                        ORDINARY_USER], check=True)
    return Account(ORDINARY_USER)


class Child:
    """A process that a test talks to while it runs: it says lines, and hears lines."""

    def __init__(self, box, process):
        self.box = box
        self.process = process
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.decode().rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def expect(self, word=None, timeout=30):
        """The next line; `word` says what it must begin with."""
        with self.changed:
            heard = self.changed.wait_for(lambda: self.lines, timeout)
            if not heard or self.lines[0] is None:
                raise AssertionError(f"the child {'ended' if heard else 'hangs'} before it said {word!r}")
            line = self.lines.pop(0)
        assert word is None or line.startswith(word), f"the child said {line!r}, not {word!r}"
        return line

    def tell(self, line="go"):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, timeout=30):
        """Its exit status; a process that does not end is a failure."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.box.abort_all("a child process hangs")
            raise AssertionError(f"the child did not end within {timeout} s") from None
        return status

    def finish(self, timeout=30):
        assert self.wait(timeout) == 0
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.wait(5)
        self.process.stdin.close()
        self.reader.join(5)
        self.process.stdout.close()


class Result:
    """What a command came to: `.status`, `.out`, `.err` (text)."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"Result(status={self.status}, out={self.out!r}, err={self.err!r})"


class StartError(AssertionError):
    """The daemon ended instead of mounting."""

    def __init__(self, status, text):
        super().__init__(f"hugfs ended with status {status}: {text}")
        self.status, self.text = status, text


class Box:
    """One test's world. `close()` ends everything in it and tells what was wrong."""

    def __init__(self, session, account, limit=60):
        self.session = session
        self.hub = session.hub
        self.account = account
        self.limit = limit
        self.dir = tempfile.mkdtemp(prefix="hugfs-")
        self.mounts = []
        self.children = []
        self.expected = []
        self.problems = []
        self.token = "user"
        os.chmod(self.dir, 0o755)
        for name in ("home", "run", "tmp"):
            self.folder(name, 0o700)
        if account.uid != os.getuid():
            os.chown(self.dir, account.uid, account.gid)

    def folder(self, name, mode=0o755):
        path = os.path.join(self.dir, name)
        os.mkdir(path, mode)
        if self.account.uid != os.getuid():
            os.chown(path, self.account.uid, self.account.gid)
        return path

    def env(self, **more):
        """The environment of every process in the box. A value of None takes a variable away."""
        env = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}
        home = os.path.join(self.dir, "home")
        env.update(
            PATH=os.path.dirname(self.session.binary) + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", HOME=home,
            XDG_CACHE_HOME=home + "/cache", XDG_STATE_HOME=home + "/state", XDG_CONFIG_HOME=home + "/config",
            XDG_RUNTIME_DIR=os.path.join(self.dir, "run"), HF_HOME=home + "/hf", HF_ENDPOINT=self.hub.endpoint,
            HF_TOKEN=self.hub.tokens.get(self.token, self.token), TMPDIR=os.path.join(self.dir, "tmp"),
            LANG="C.UTF-8", TZ="UTC", PYTHONDONTWRITEBYTECODE="1", GIT_CONFIG_NOSYSTEM="1")
        env.update(more)
        return {name: value for name, value in env.items() if value is not None}

    def expect(self, pattern):
        """Declare errors and warnings in the daemons' log that belong to this test."""
        self.expected.append(re.compile(pattern))

    def _is_expected(self, line):
        entry = LOG_LINE.match(line)  # what is no log line (a sanitizer's report) is never expected
        return entry and (entry[1] in ("info", "debug") or any(pattern.search(line) for pattern in self.expected))

    # Processes

    def run(self, argv, timeout=30, check=True, stdin=b"", env=None, data=False, as_root=False):
        """Run a program to its end; `data`: its output stays bytes. A hang aborts every mount and fails."""
        account = Account("root") if as_root else self.account
        process = account.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.env(**(env or {})), cwd=self.dir)
        try:
            out, err = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            self.abort_all(f"{argv} hangs")
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{argv} did not end within {timeout} s: {out!r} {err!r}") from None
        result = Result(process.returncode, out if data else out.decode(errors="surrogateescape"),
                        err.decode(errors="replace"))
        assert not check or result.status == 0, f"{argv}: {result}"
        return result

    def hugfs(self, *words, check=True, timeout=40, **options):
        """Run the command `hugfs`. What it prints is for the test to judge; but never a secret."""
        result = self.run([self.session.binary, *words], check=check, timeout=timeout, **options)
        assert not SECRET.search(result.out + result.err)
        return result

    def spawn(self, argv, env=None):
        """Start a program that the test talks to."""
        process = self.account.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.env(**(env or {})),
                                     cwd=self.dir)
        child = Child(self, process)
        self.children.append(child)
        return child

    # Mounts

    def mount(self, source, *options, name=None, env=None):
        """Mount a source; `options` are those of -o."""
        mount = Mount(self, name or f"m{len(self.mounts)}")
        self.mounts.append(mount)
        mount.start(source, *options, env=env)
        return mount

    def abort_all(self, why):
        self.problems.append(why)
        for mount in self.mounts:
            mount.abort()

    def repo(self, files=None, type="model", namespace="user", **settings):
        """A fresh repository with these files in one commit."""
        repo = Repo(self.hub, f"{namespace}/repo-{next(self.session.numbers)}", type)
        self.hub.create_repo(repo.id, type=type, token="user" if namespace != "other" else "other", **settings)
        if files:
            self.hub.commit(repo.id, files, type=type, token="user" if namespace != "other" else "other")
        repo.mark()
        return repo

    def close(self, keep=False):
        """End everything; what was wrong, as a list."""
        for child in self.children:
            child.close()
        for mount in self.mounts:
            try:
                mount.unmount()
            except AssertionError as error:
                self.problems.append(str(error))
                mount.abort()
        for mount in self.mounts:
            self._judge(mount)
        self._look_for_remains()
        if not keep:
            shutil.rmtree(self.dir)
        return self.problems

    def _judge(self, mount):
        for line in mount.stderr().splitlines():
            if SECRET.search(line):
                self.problems.append(f"a secret in stderr: {SECRET.sub('***', line)}")
            elif not self._is_expected(line):
                self.problems.append(f"stderr: {line}")

    def _look_for_remains(self):
        left = [point for point in mounts() if point.startswith(self.dir + "/")]
        self.problems += [f"a mount is left: {point}" for point in left]
        for point in left:
            subprocess.run(["umount", "-l", point], check=False)
        for pid in self.session.daemons():
            self.problems.append(f"a process is left: {pid}")
            os.kill(pid, signal.SIGKILL)
        if not any(mount.crashed for mount in self.mounts):
            for folder, _, files in os.walk(os.path.join(self.dir, "run")):
                self.problems += [f"a socket is left: {folder}/{name}" for name in files
                                  if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)]


class Mount:
    """A mountpoint and the daemon behind it."""

    def __init__(self, box, name):
        self.box = box
        self.dir = box.folder(name)
        self.log = os.path.join(box.dir, name + ".stderr")
        self.process = None
        self.minor = None
        self.watchdog = None
        self.crashed = False  # the last daemon was killed

    # The daemon

    def start(self, source=None, *options, env=None):
        """Start a daemon in the foreground and wait until it is mounted. Without a source: as the last time."""
        if source is not None:
            self.command = source, options, env
        source, options, env = self.command
        argv = [self.box.session.binary, "-f", source, self.dir]
        argv += ["-o", ",".join(("umount_timeout=5", *options))]
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.process = self.box.account.popen(argv, stderr=log, stdout=log, env=self.box.env(**(env or {})),
                                                  cwd="/")
        self.crashed = False
        eventually(lambda: self.dir in mounts() or self.process.poll() is not None, 30, "the mount")
        if self.dir not in mounts():
            raise StartError(self.process.wait(), self.stderr()[begin:])
        self.adopt()
        return self

    def adopt(self):
        """Guard what is mounted here: after the box's limit the connection is cut and the daemon killed."""
        self.minor = mounts()[self.dir][0]
        self.watchdog = threading.Timer(self.box.limit, self._bite)
        self.watchdog.daemon = True
        self.watchdog.start()

    def _bite(self):
        self.box.problems.append(f"the watchdog ended the mount after {self.box.limit} s")
        self.abort()

    def abort(self):
        """End the mount by force: whoever waits for it gets an error."""
        self.crashed = True
        if self.minor is not None:
            try:
                with open(os.path.join(self.box.session.connections, self.minor, "abort"), "w") as file:
                    file.write("1")
            except OSError:
                pass  # it is gone, or we are not root
        if self.process and self.process.poll() is None:
            self.process.kill()

    def kill(self):
        """kill -9, and take the dead mount away."""
        self.crashed = True
        self.process.kill()
        self.process.wait()
        self._detach(lazy=True)
        self._rest()

    def restart(self, *options):
        """A new daemon on the same mountpoint, with the same options unless others are given."""
        if options:
            self.command = self.command[0], options, self.command[2]
        return self.start()

    def unmount(self, timeout=20):
        """Unmount as a user does, and wait until the daemon has ended. Its exit status."""
        if self.dir in mounts():
            self._detach()
        status = None
        if self.process:
            try:
                status = self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.abort()
                self.process.wait()
                raise AssertionError(f"the daemon did not end within {timeout} s after the unmount") from None
        self._rest()
        return status

    def _detach(self, lazy=False):
        command = ["umount"] if self.box.account.is_root else ["fusermount3", "-u"]
        lazily = [] if not lazy else ["-l"] if self.box.account.is_root else ["-z"]
        self.box.run([*command, *lazily, self.dir])

    def _rest(self):
        if self.watchdog:
            self.watchdog.cancel()
            self.watchdog.join()
        self.watchdog = self.minor = None

    def stderr(self):
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    # Files, by processes of the box's user

    def path(self, path=""):
        return os.path.join(self.dir, path) if path else self.dir

    def run(self, argv, env=None, **options):
        """Box.run with $MNT set to the mountpoint."""
        return self.box.run(argv, env={"MNT": self.dir, **(env or {})}, **options)

    def sh(self, script, **options):
        """Run a shell script in the mount's root and return what it prints."""
        return self.run(["sh", "-euc", 'cd "$MNT"\n' + textwrap.dedent(script)], **options).out

    def py(self, code, *args, **options):
        """Run Python in the mount's root (see PRELUDE) and return what it prints."""
        return self.run(self._python(code, args), **options).out

    def start_py(self, code, *args):
        """Start Python in the mount's root as a child to talk to."""
        return self.box.spawn(self._python(code, args), env={"MNT": self.dir})

    def _python(self, code, args):
        return [PYTHON, "-c", PRELUDE + textwrap.dedent(code), *args]

    def read(self, path, **options):
        return self.run(["cat", self.path(path)], data=True, **options).out

    def write(self, path, data, **options):
        """Create or replace a file by one open, write, close."""
        self.py("with open(sys.argv[1], 'wb') as file: file.write(sys.stdin.buffer.read())", path, stdin=data,
                **options)

    def outcome(self, expression, *args, **options):
        """The name of the errno ("0": none) of one expression, e.g. `os.mkdir("main/x")`."""
        return self.py(f"print(outcome(lambda: {expression}))", *args, **options).strip()

    def ls(self, path="", **options):
        """The names in a folder, sorted."""
        return sorted(self.py("sys.stdout.write(''.join(name + '\\0' for name in os.listdir(sys.argv[1])))",
                              self.path(path), **options).split("\0")[:-1])

    def files(self, path="", **options):
        """{path: bytes} of all files below a folder."""
        return files_below(self.box, self.path(path), **options)

    def exists(self, path):
        return self.run(["test", "-e", self.path(path)], check=False).status == 0

    def xattr(self, path, name):
        """An extended attribute `user.hugfs.NAME`; "" where there is none."""
        return self.py("""
            name = 'user.hugfs.' + sys.argv[2]
            if name in os.listxattr(sys.argv[1]):
                print(os.getxattr(sys.argv[1], name).decode())
            """, path, name).strip()

    def stat(self, path=""):
        text = self.run(["stat", "--format=%s %f %.9Y %i %u %g", self.path(path)]).out
        size, mode, mtime, ino, uid, gid = text.split()
        return Stat(int(size), int(mode, 16), float(mtime), int(ino), int(uid), int(gid))


Stat = collections.namedtuple("Stat", "size mode mtime ino uid gid")


def files_below(box, path, **options):
    """{path: bytes} of all files below a folder, read by the box's user."""
    archive = box.run(["tar", "-C", path, "-cf", "-", "."], data=True, **options).out
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name[2:]: tar.extractfile(member).read() for member in tar if member.isfile()}


class Repo:
    """A repository on the Hub, seen by somebody who does not use the mount."""

    def __init__(self, hub, repo_id, type):
        self.hub = hub
        self.id = repo_id
        self.type = type
        self.prefix = client.PREFIXES[type]
        self.uri = f"hf://{self.prefix}{repo_id}"
        self.token = self.id.split("/")[0] if self.id.split("/")[0] in hub.tokens else "user"
        self.base = {}

    def head(self, rev="main"):
        return self.hub.git(self.id, "rev-parse", rev, type=self.type).decode().strip()

    def mark(self, rev="main"):
        """From now on `published` counts what comes after this."""
        self.base[rev] = self.head(rev)

    def push(self, files, rev="main", **options):
        """A commit by somebody else."""
        commit = self.hub.commit(self.id, files, branch=rev, type=self.type, token=self.token, **options)
        self.mark(rev)
        return commit

    def published(self, rev="main"):
        """The commits since the mark, oldest first."""
        return self.hub.git(self.id, "rev-list", "--reverse", f"{self.base[rev]}..{rev}",
                            type=self.type).decode().split()

    def wait_published(self, count=1, rev="main", timeout=20):
        """Wait for that many commits; there must not be more."""
        commits = eventually(lambda: len(self.published(rev)) >= count and self.published(rev), timeout,
                             f"{count} commit(s) of {self.id}")
        assert len(commits) == count, f"{len(commits)} commits instead of {count}"
        return commits

    def paths(self, rev="main"):
        """All paths but .gitattributes, which the Hub itself edits."""
        return sorted(path for path in self.hub.paths(self.id, rev, self.type) if path != ".gitattributes")

    def content(self, path, rev="main"):
        return self.hub.content(self.id, path, rev, self.type)

    def files(self, rev="main"):
        return {path: self.content(path, rev) for path in self.paths(rev)}

    def changes(self, commit):
        """{path: status letter} of one commit, without .gitattributes."""
        text = self.hub.git(self.id, "diff-tree", "-r", "-z", "--no-renames", "--name-status", "--no-commit-id", commit,
                            type=self.type).decode()
        words = text.split("\0")[:-1]
        return {path: status for status, path in zip(words[::2], words[1::2]) if path != ".gitattributes"}


class Hub(client.Hub):
    """The test Hub, with a cheap last_seq()."""

    known = 0

    def last_seq(self):
        self.known = max((item["seq"] for item in self.requests(since=self.known)), default=self.known)
        return self.known


class Session:
    """What all tests of a run share: the Hub, the binary, the accounts."""

    def __init__(self, binary, hub, account, connections, folder):
        self.hub = hub
        self.account = account
        self.connections = connections
        self.numbers = itertools.count(1)
        self.binary = os.path.join(folder, "hugfs")
        shutil.copy2(binary, self.binary)

    def daemons(self):
        """The processes that run our copy of the binary."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe") == self.binary:
                    found.append(int(pid))
            except OSError:
                continue
        return found


def snapshot_download(hub, repo, rev="main", **where):
    """The official client's snapshot_download in a process of its own; `where`: cache_dir or local_dir."""
    code = ("import json, sys; from huggingface_hub import snapshot_download\n"
            "print(snapshot_download(**json.loads(sys.argv[1])))")
    arguments = {"repo_id": repo.id, "repo_type": repo.type, "revision": rev, **where}
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.tokens["user"], "HF_HOME": home,
               "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
               "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        done = subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], env=env, timeout=60, check=True,
                              stdout=subprocess.PIPE)
    return done.stdout.decode().splitlines()[-1]


def plain_files(folder, *left_out):
    """{path: bytes} below a folder that is not in a mount, without the folders `left_out` at its top."""
    found = {}
    for here, folders, names in os.walk(folder):
        if here == folder:
            folders[:] = [name for name in folders if name not in left_out]
        for name in names:
            path = os.path.join(here, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def git_clone(hub, repo, folder):
    """`git clone` and `git lfs pull` of a public repository; its files."""
    env = {**os.environ, "HOME": folder, "GIT_CONFIG_NOSYSTEM": "1", "GIT_LFS_SKIP_SMUDGE": "1",
           "GIT_TERMINAL_PROMPT": "0"}
    target = os.path.join(folder, "clone")
    for argv in (["git", "clone", "-q", f"{hub.endpoint}/{repo.prefix}{repo.id}", target],
                 ["git", "-C", target, "lfs", "install", "--local", "--force"],
                 ["git", "-C", target, "lfs", "pull"]):
        subprocess.run(argv, env=env, timeout=60, check=True, stdout=subprocess.DEVNULL)
    return plain_files(target, ".git")
