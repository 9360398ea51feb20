"""One lane of the torture: a repository, a home, and cycle after cycle of work that ends with the death of the daemon.

What must hold after every death (`check`): what was acknowledged is there, byte for byte; an operation that was under way is
there whole, not at all, or its file is interrupted. At the end of a lane (`finish`): git holds the files; no commit is
empty; no path ever held bytes that no operation gave it; files of a group came together; fsck finds nothing.
"""

import collections
import errno
import glob
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import threading

import harness
import model
import replay

POINT = struct.Struct("56sQ")
POINTS = 96
FAULTS = ({"lose_answer": True}, {"lose_answer_status": 504}, {"status": 503}, {"delay_ms": 300}, {"delay_answer_ms": 300})
ROUTES = ("/commit/", "/commit/", "/preupload/", "/objects/batch")
DEATH = (errno.ENOTCONN, errno.ECONNABORTED)
EXPECTED = (r" warn ", r" err ")  # faults and kills are what this is about; what is said of them is not judged


class Wrong(Exception):
    """A promise that was broken."""


class Lane:
    def __init__(self, session, number, seed, dice, library, power):
        self.session, self.number, self.seed, self.dice, self.power = session, number, seed, dice, power
        self.library = library
        self.box = harness.Box(session, session.account, limit=120)
        for pattern in EXPECTED:
            self.box.expect(pattern)
        self.repo = self.box.repo({"start.txt": b"start"})
        self.program = model.Program(dice)
        self.known = {}                           # path: ids that git may show there
        self.points = collections.Counter()       # name: calls seen in one life, at most
        self.fault = None
        self.ext = {}                             # what others pushed
        self.deaths = collections.Counter()       # name: times the daemon was killed there
        self.counts = collections.Counter()
        self.durable = []                         # power: [content, places it may be at], synced and not changed since
        self.loose_groups = set()                 # contents of a group that was cut short
        self.trace = []
        self.state = os.path.join(self.box.dir, "home", "state")
        os.makedirs(self.state, mode=0o700)
        self.mount = harness.Mount(self.box, "mnt")
        self.box.mounts.append(self.mount)
        self.boot_id = os.path.join(self.box.dir, "boot_id")
        self.boots = 0
        self.boot()

    def boot(self):
        """The machine is started."""
        self.boots += 1
        with open(self.boot_id, "w", encoding="ascii") as file:
            file.write(f"{self.boots:08}-0000-4000-8000-000000000000\n")

    # A life of the daemon

    def start(self, kill):
        counts = os.path.join(self.box.dir, "counts")
        with open(counts, "wb") as file:
            file.truncate(POINTS * POINT.size)
        env = {"LD_PRELOAD": self.library, "TORTURE_STATE": self.state, "TORTURE_COUNTS": counts,
               "TORTURE_BOOT_ID": self.boot_id}
        if kill:
            env["TORTURE_KILL"] = f"{kill[1]} {kill[0]}"
        if self.power:
            self.log = os.path.join(self.box.dir, "changes")
            self.before = os.path.join(self.box.dir, "before")
            shutil.rmtree(self.before, ignore_errors=True)
            self.keep_before()
            env["TORTURE_LOG"] = self.log
        manual = self.power and self.dice.random() < 0.5
        options = ["commit=manual"] if manual else ["commit_delay=0.4"]
        self.published = not manual
        self.say("start", *options, "kill", kill)
        self.mount.start(self.repo.uri, *options, "poll=1", env=env)

    def keep_before(self):
        """The staging folder as it is now counts as safe."""
        if os.path.exists(self.log):
            os.unlink(self.log)
        shutil.copytree(self.state, self.before)
        files = [path for path in glob.glob(self.state + "/**", recursive=True) if os.path.isfile(path)]
        self.inodes = {os.stat(path).st_ino: os.path.relpath(path, self.state) for path in files}

    def tally(self, kill):
        with open(os.path.join(self.box.dir, "counts"), "rb") as file, \
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for at in range(0, POINTS * POINT.size, POINT.size):
                name, calls = POINT.unpack_from(view, at)
                name = name.split(b"\0")[0].decode()
                if not name:
                    break
                self.points[name] = max(self.points[name], calls)
                if kill and kill == (name, calls):
                    self.deaths[name] += 1
                    return
        self.deaths["at a random moment"] += 1

    def choose(self):
        """Where the daemon will die: None is a random moment."""
        names = sorted(self.points)
        if not names or self.dice.random() < 0.2:
            return None
        name = self.dice.choice(names)
        return name, self.dice.randint(1, 1 + self.points[name] // self.dice.choice((2, 8, 32)))

    def say(self, *words):
        self.trace.append(" ".join(map(str, words)))

    # Work

    def note(self, changes):
        for path, data in changes.items():
            if data is not None:
                self.known.setdefault(path, set()).update(model.git_ids(data))

    def work(self, count):
        """Operations until the daemon is dead or `count` are done; the operation that death interrupted, or None."""
        root = self.mount.path("main")
        for _ in range(count):
            op = self.program.next()
            self.note(op.changes)
            self.say(op.text)
            try:
                op.run(root)
            except OSError as error:
                self.say("  ended by", error)
                if error.errno not in DEATH:
                    raise Wrong(f"{op.text}: {error}") from None
                if op.group:
                    self.loose_groups.update(op.changes.values())
                return op
            self.follow(op)
            self.program.accept(op)
            self.counts["acknowledged"] += 1
            if op.synced and self.published:
                self.must_be_published(op)
            if self.dice.random() < 0.05:
                self.push()
        return None

    def follow(self, op):
        """Which contents must survive a power failure."""
        if not self.power:
            return
        moved = dict(op.moves)
        for item in list(self.durable):
            place = item[2]
            if place in moved:
                item[1].add(moved[place])
                item[2] = moved[place]
            elif place in op.changes:
                self.durable.remove(item)
        if op.synced:
            self.durable.append([op.changes[op.synced], {op.synced}, op.synced])

    def must_be_published(self, op):
        shown = self.tree("main").get(op.synced)
        if shown not in model.git_ids(op.changes[op.synced]):
            raise Wrong(f"fsync of {op.synced} came back, but the branch has {shown}")
        self.counts["fsyncs seen in git"] += 1

    def push(self):
        self.counts["pushes by others"] += 1
        name = f"ext/{self.counts['pushes by others'] % 5}.txt"
        data = b"push %d" % self.counts["pushes by others"]
        self.note({name: data})
        self.say("push", name)
        self.end_fault()  # it is for hugfs, not for them
        self.session.hub.commit(self.repo.id, {name: data})
        self.ext[name] = data

    def end_fault(self):
        if self.fault is not None:
            self.session.hub.clear_faults(self.fault)
            self.fault = None

    def cycle(self):
        self.began = self.session.hub.last_seq()
        kill = self.choose()
        if self.dice.random() < 0.5:
            fault = self.dice.choice(FAULTS)
            self.end_fault()
            self.say("fault", fault)
            self.fault = self.session.hub.fault(path=self.repo.id + ".*" + self.dice.choice(ROUTES), **fault)
        try:
            self.start(kill)
        except harness.StartError:
            if self.mount.process.poll() != -9:
                raise
            self.mount.crashed = True
            self.clean_up(kill, None)
            return
        self.end_by_timer = threading.Timer(self.dice.uniform(0, 1.5) if not kill else 2.5, self.mount.process.kill)
        self.end_by_timer.start()
        op = self.work(self.dice.randint(5, 60))
        self.mount.process.wait(30)
        self.end_by_timer.cancel()
        self.end_by_timer.join()
        self.clean_up(kill, op)

    def clean_up(self, kill, op):
        self.mount.crashed = True
        if self.mount.dir in harness.mounts():
            self.mount.kill()
        self.tally(kill)
        self.say("dead", kill)
        if self.dice.random() < 0.5:
            self.end_fault()
        if self.dice.random() < 0.3:
            self.push()
        if self.power:
            self.lose_power()
        if kill and self.dice.random() < 0.2:
            self.die_again()
        self.check(op)

    def die_again(self):
        """Another death while the next daemon starts."""
        kill = self.choose()
        try:
            self.start(kill)
            self.mount.process.kill()
        except harness.StartError:
            if self.mount.process.poll() != -9:
                raise
        self.mount.crashed = True
        if self.mount.dir in harness.mounts():
            self.mount.kill()
        self.tally(kill)
        if self.power:
            self.lose_power()

    def lose_power(self):
        disk = replay.Disk(self.before, self.inodes, self.log)
        shutil.rmtree(self.state)
        disk.write(self.state, self.dice)
        self.boot()

    # Promises

    def check(self, op):
        """A new daemon shows what was acknowledged."""
        self.start(None)
        self.counts["deaths survived"] += 1
        shown = {name: data for name, data in self.mount.files("main").items()
                 if name not in (".gitattributes", "start.txt") and not name.startswith("ext/")}
        temporary = [name for name in shown if name.endswith(".tmp")]
        for name in temporary:
            del shown[name]
            os.unlink(self.mount.path("main/" + name))
        expected = self.program.files
        for path in sorted(shown.keys() | expected.keys() | set(op.changes if op else ())):
            self.check_path(path, shown.get(path), op)
        for content, places, _ in self.durable:
            if not any(shown.get(place) == content for place in places) and \
                    not (op and places & set(op.changes)):
                found = {place: brief(shown.get(place)) for place in sorted(places)}
                raise Wrong(f"{brief(content)} was synced before the power failure and is gone: {found};"
                            f" shown {sorted(shown)}, git has {sorted(self.tree('main'))}")
        self.durable = []
        self.mount.unmount(40)
        self.mount.crashed = True

    def check_path(self, path, shown, op):
        expected = self.program.files.get(path)
        allowed = [expected]
        if op and path in op.changes:
            allowed.append(op.changes[path])
        if shown not in allowed:
            interrupted = shown is not None and self.mount.xattr("main/" + path, "state") == "interrupted"
            in_doubt = self.power or (op and path in op.mixed)
            if shown is None and not self.power:
                raise Wrong(f"{path} is gone; it was {brief(expected)}, the operation under way was {op and op.text}")
            if shown is not None and not (interrupted and in_doubt) and \
                    not (self.power and self.is_known(path, shown)):
                raise Wrong(f"{path} is {brief(shown)}, not {' or '.join(map(brief, allowed))}"
                            f" (state {self.mount.xattr('main/' + path, 'state')}, under way: {op and op.text})")
            if interrupted:
                self.counts["interrupted files"] += 1
                self.remove(path)
                shown = None
        elif shown is not None and self.mount.xattr("main/" + path, "state") == "interrupted":
            if not (self.power or (op and path in op.mixed)):
                raise Wrong(f"{path} is interrupted, though nothing wrote to it (under way: {op and op.text})")
            self.remove(path)
            shown = None
        if shown is None:
            self.program.files.pop(path, None)
        else:
            self.program.files[path] = shown

    def remove(self, path):
        """Take an interrupted file away: of what is on the branch, for its fsync may be a commit that lands just now."""
        self.session.hub.wait_for(lambda items: all(item["end"] for item in items if self.repo.id in item["path"]) or None,
                                  since=self.began)
        self.box.hugfs("refresh", self.mount.path("main"))
        os.unlink(self.mount.path("main/" + path))

    def is_known(self, path, data):
        return bool(self.known.get(path, set()) & set(model.git_ids(data)))

    def tree(self, commit):
        text = self.session.hub.git(self.repo.id, "ls-tree", "-r", "-z", commit).decode()
        return {line.split("\t", 1)[1]: line.split()[2] for line in text.split("\0")[:-1]}

    def finish(self):
        """Publish everything, then judge the branch from its first commit to its last."""
        self.end_fault()
        self.power = False
        self.start(None)
        self.box.hugfs("commit", self.mount.path("main"))
        files = dict(self.repo.files())
        files.pop("start.txt", None)
        ours = {name: data for name, data in files.items() if not name.startswith("ext/")}
        if ours != self.program.files:
            odd = [name for name in sorted(ours.keys() | self.program.files.keys())
                   if ours.get(name) != self.program.files.get(name)]
            raise Wrong(f"git differs from what was acknowledged: {odd}")
        if {name: data for name, data in files.items() if name.startswith("ext/")} != self.ext:
            raise Wrong("what others pushed is not there")
        self.mount.unmount(40)
        self.judge_history()
        problems = self.box.close()
        if problems:
            raise Wrong("; ".join(problems))

    def judge_history(self):
        hub, repo = self.session.hub, self.repo.id
        lines = hub.git(repo, "log", "--format=%H %T", f"{self.repo.base['main']}^..main").decode().split("\n")[:-1]
        trees = [line.split()[1] for line in lines]
        if any(tree == below for tree, below in zip(trees, trees[1:])):
            raise Wrong("a commit changes nothing: something was committed twice")
        tokens = [line for line in hub.git(repo, "log", "--format=%B", "main").decode().split("\n")
                  if line.startswith("hugfs-commit:")]
        if len(set(tokens)) != len(tokens):
            raise Wrong("one change set was committed twice")
        self.counts["commits"] += len(tokens)
        loose = {one for data in self.loose_groups for one in model.git_ids(data)}
        stamp_of = {}
        for line in lines:
            tree = self.tree(line.split()[0])
            for path, blob in tree.items():
                if path not in (".gitattributes", "start.txt") and blob not in self.known.get(path, ()):
                    raise Wrong(f"commit {line.split()[0]}: nobody gave {path} these bytes")
            group = [tree[name] for name in model.GROUP if name in tree]
            stamps = {self.stamp(blob, stamp_of) for blob in group}
            if len(stamps) > 1 and not loose & set(group):
                raise Wrong(f"commit {line.split()[0]}: half of a group: {stamps}")
        fsck = subprocess.run(["git", "-c", "safe.directory=*", "-C", hub.git_dir(repo), "fsck", "--full", "--no-dangling"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if fsck.returncode:
            raise Wrong("git fsck: " + fsck.stdout.decode())

    def stamp(self, blob, known):
        if not known:
            for stamp, contents in self.program.groups.items():
                for content in contents:
                    known.update(dict.fromkeys(model.git_ids(content), stamp))
        return known.get(blob)


def brief(data):
    if data is None:
        return "nothing"
    return f"{len(data)} bytes {data[:20]!r} {hashlib.sha1(data).hexdigest()[:8]}"
