"""Many clients at once against one test Hub: `python3 tests/hub/load.py [--clients 200] [--seconds 60]`.

Each client is a thread with connections of its own. It commits to a folder of its own on several branches of several
repositories, uploads LFS files, opens pull requests, tags, lists and reads, and compares every answer with
what it knows: its own acknowledged commits must be seen at once, with the ids that git would give. At the end git is
asked: every acknowledged commit is in the history of its branch exactly once and nothing else is, every branch
holds exactly the files that were acknowledged, the API lists what `git ls-tree` lists, and `git fsck` is content.
"""

import argparse
import collections
import hashlib
import itertools
import os
import random
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from client import Hub, HubError, quote  # noqa: E402

REPOS = [("model", "user/load-1"), ("model", "user/load-2"), ("dataset", "user/load-3"), ("dataset", "acme/load-4")]
BRANCHES = ["main", "dev", "exp/one"]
TRIES = 100
MOVED = (409, 412)  # somebody else commits, or has committed

Place = collections.namedtuple("Place", "type id branch")
File = collections.namedtuple("File", "data oid lfs")


class Wrong(Exception):
    """An answer that cannot be."""


def check(condition, *what):
    if not condition:
        raise Wrong(" ".join(map(str, what)))


def blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def make_file(path, data):
    """What git holds for a file: LFS for *.bin, as the first commit of every repository says."""
    if not path.endswith(".bin"):
        return File(data, blob_id(data), None)
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    return File(data, blob_id(pointer.encode()), digest)


class Caller(Hub):
    """The helper of the tests, for one thread: connections are kept."""

    def __init__(self, hub):
        self.endpoint, self.data, self.tokens = hub.endpoint, hub.data, hub.tokens
        self.root, self.trust = hub.root, hub.trust
        self.kept = {}

    def connect(self, base=None):
        key = base.netloc if base else self.endpoint
        if key not in self.kept:
            self.kept[key] = super().connect(base)
        return self.kept[key]

    def release(self, connection):
        pass

    def close(self):
        for connection in self.kept.values():
            connection.close()


class Ledger:
    """What all clients were told: acknowledged commits of each place, pull requests, and how long calls took."""

    def __init__(self):
        self.lock = threading.Lock()
        self.commits = collections.defaultdict(list)  # Place: [(commit, parent it was given or None)]
        self.proposals = collections.defaultdict(dict)  # (type, id): {number: commit}
        self.seconds = collections.defaultdict(list)
        self.refused = collections.Counter()
        self.wrong = []

    def add(self, kind, *key_and_value):
        with self.lock:
            if kind == "commit":
                place, commit, parent = key_and_value
                self.commits[place].append((commit, parent))
            else:
                repo, number, commit = key_and_value
                check(number not in self.proposals[repo], "two pull requests have the number", number)
                self.proposals[repo][number] = commit


class Client:
    """One thread's user: what it does is drawn from a generator of its own."""

    def __init__(self, hub, number, ledger):
        self.hub = Caller(hub)
        self.number = number
        self.ledger = ledger
        self.random = random.Random(number)
        self.folder = f"c{number:03d}"
        self.files = collections.defaultdict(dict)  # Place: {path: File}
        self.names = itertools.count(1)
        self.token = "other" if number % 7 == 0 else "user"
        self.deeds = [(self.commit, 30), (self.read, 20), (self.list_folder, 15), (self.paths_info, 10),
                      (self.list_all, 3), (self.propose, 4), (self.tag, 2), (self.history, 4)]

    def run(self, until, failed):
        try:
            while time.monotonic() < until and not failed.is_set():
                deed = self.random.choices(*zip(*self.deeds))[0]
                kind, repo = self.random.choice(self.repos())
                deed(Place(kind, repo, self.random.choice(BRANCHES)))
        except Exception:
            with self.ledger.lock:
                self.ledger.wrong.append(f"client {self.number}: {traceback.format_exc(limit=-3)}")
            failed.set()
        finally:
            self.hub.close()

    def repos(self):
        """`other` may write in the organization only."""
        return [item for item in REPOS if self.token == "user" or item[1].startswith("acme/")]

    def timed(self, what, call, *arguments, **named):
        began = time.monotonic()
        try:
            return call(*arguments, **named)
        finally:
            with self.ledger.lock:
                self.ledger.seconds[what].append(time.monotonic() - began)

    def api(self, place, rest):
        return f"{self.hub.api(place.id, place.type)}/{rest}"

    # Deeds

    def new_files(self):
        """{path: bytes} of one to four files, old names and new ones, some of them LFS."""
        found = {}
        for _ in range(self.random.randint(1, 4)):
            name = self.random.choice([f"f{self.random.randrange(9)}", f"sub/g{self.random.randrange(9)}"])
            lfs = self.random.random() < 0.25
            size = self.random.randint(1, 60_000 if lfs else 2000)
            found[f"{self.folder}/{name}{'.bin' if lfs else '.txt'}"] = self.random.randbytes(size)
        return found

    def commit(self, place):
        """A commit with or without its parent named; taken back and tried again when somebody was faster."""
        known = self.files[place]
        changes = dict(self.new_files())
        gone = [path for path in known if path not in changes and self.random.random() < 0.1]
        changes.update(dict.fromkeys(gone))
        for _ in range(TRIES):
            parent = None
            if self.random.random() < 0.3:
                parent = self.hub.head(place.id, place.branch, place.type, self.token)
            try:
                commit = self.timed("commit", self.hub.commit, place.id, changes, place.branch, place.type,
                                    self.token, f"Commit {next(self.names)} of {self.folder}", parent=parent)
                break
            except HubError as error:
                check(error.status in MOVED, "a commit was refused:", error)
                with self.ledger.lock:
                    self.ledger.refused[error.status] += 1
        else:
            raise Wrong(f"{TRIES} tries were not enough to commit to {place}")
        self.ledger.add("commit", place, commit, parent)
        for path, data in changes.items():
            if data is None:
                del known[path]
            else:
                known[path] = make_file(path, data)

    def read(self, place):
        """The bytes of a file of our own, through all redirects."""
        if not self.files[place]:
            return
        path, file = self.random.choice(list(self.files[place].items()))
        prefix = "datasets/" if place.type == "dataset" else ""
        target = f"/{prefix}{place.id}/resolve/{quote(place.branch)}/{path}"
        began = time.monotonic()
        answer = self.hub.request("GET", target, token=self.token)
        while answer.status in (302, 307):
            where = answer.headers["location"]
            stays = where.startswith("/")
            answer = self.hub.request("GET", where, token=self.token if stays else None)
        with self.ledger.lock:
            self.ledger.seconds["read"].append(time.monotonic() - began)
        check(answer.status == 200 and answer.body == file.data, "read", place, path, answer.status)

    def list_folder(self, place):
        target = self.api(place, f"tree/{quote(place.branch)}/{self.folder}?recursive=true")
        answer = self.timed("list folder", self.hub.request, "GET", target, token=self.token)
        if not self.files[place]:
            check(answer.status == 404, "an empty folder is answered", answer.status)
            return
        check(answer.status == 200, "list", place, answer.status)
        self.compare(place, answer.json())

    def compare(self, place, items):
        """A listing of our folder against what we know."""
        found = {item["path"]: (item["oid"], item["size"], item.get("lfs", {}).get("oid"))
                 for item in items if item["type"] == "file"}
        wanted = {path: (file.oid, len(file.data), file.lfs) for path, file in self.files[place].items()}
        check(found == wanted, "listed", place, set(found.items()) ^ set(wanted.items()))

    def paths_info(self, place):
        asked = [*self.random.sample(sorted(self.files[place]), min(3, len(self.files[place]))), f"{self.folder}/no"]
        items = self.timed("paths-info", self.hub.call, "POST", self.api(place, f"paths-info/{quote(place.branch)}"),
                           {"paths": asked, "expand": False}, token=self.token)
        check({item["path"]: item["oid"] for item in items} ==
              {path: self.files[place][path].oid for path in asked[:-1]}, "paths-info", place, asked)

    def list_all(self, place):
        """The same commit listed twice is the same, and holds all that we committed before."""
        head = self.hub.head(place.id, place.branch, place.type, self.token)
        first, second = (self.timed("list all", self.pages, place, head) for _ in range(2))
        check(first == second, "two listings of", head, "differ")
        self.compare(place, [item for item in first if item["path"].startswith(self.folder + "/")])

    def pages(self, place, revision):
        target, found = self.api(place, f"tree/{revision}?recursive=true"), []
        while target:
            answer = self.hub.request("GET", target, token=self.token)
            check(answer.status == 200, "list", place, answer.status)
            found += answer.json()
            link = answer.headers.get("link")
            target = link and link[1 : link.index(">")].removeprefix(self.hub.endpoint)
        return found

    def propose(self, place):
        """A pull request: its files are there, and not in the branch."""
        place = place._replace(branch="main")
        path = f"{self.folder}/proposed-{next(self.names)}.txt"
        answer = self.timed("pull request", self.hub.commit, place.id, {path: path.encode()}, type=place.type,
                            token=self.token, create_pr=True)
        number = int(answer["pullRequestUrl"].rpartition("/")[2])
        self.ledger.add("proposal", (place.type, place.id), number, answer["commitOid"])
        for revision, there in ((f"refs/pr/{number}", True), ("main", False)):
            items = self.hub.call("POST", self.api(place, f"paths-info/{quote(revision)}"),
                                  {"paths": [path], "expand": False}, token=self.token)
            check(bool(items) == there, "the pull request's file in", revision, items)

    def tag(self, place):
        head = self.hub.head(place.id, place.branch, place.type, self.token)
        name = f"{self.folder}-{next(self.names)}"
        self.timed("tag", self.hub.tag, place.id, name, head, type=place.type, token=self.token)
        refs = self.hub.call("GET", self.api(place, "refs"), token=self.token)
        check([item["targetCommit"] for item in refs["tags"] if item["name"] == name] == [head], "tag", name)

    def history(self, place):
        """Each page of commits is a chain, newest first."""
        page = self.timed("history", self.hub.call, "GET", self.api(place, f"commits/{quote(place.branch)}"),
                          token=self.token)
        ids = [item["id"] for item in page]
        check(len(set(ids)) == len(ids) and ids, "a commit is listed twice", place)


def verify(hub, clients, ledger):
    """What git holds, against what was acknowledged; the findings as a list of sentences."""
    found = []
    for kind, repo in REPOS:
        def git(*words):
            return hub.git(repo, *words, type=kind).decode()

        for branch in BRANCHES:
            place = Place(kind, repo, branch)
            history = [line.split() for line in git("rev-list", "--parents", branch).splitlines()]
            parents = {commit: rest[0] for commit, *rest in history if rest}
            told = [commit for commit, _ in ledger.commits[place]]
            if sorted(parents) != sorted(told) or len(history) != len(told) + 1:
                found.append(f"{place}: {len(told)} commits were acknowledged, {len(history) - 1} are there, "
                             f"{len(set(told) - set(parents))} are lost")
            found += [f"{place}: {commit} has not the parent that was named"
                      for commit, parent in ledger.commits[place] if parent and parents.get(commit) != parent]
            found += compare_tree(hub, place, clients, git)
        heads = dict(line.split()[::-1] for line in git("for-each-ref", "--format=%(objectname) %(refname)",
                                                        "refs/pr").splitlines())
        if heads != {f"refs/pr/{number}": commit for number, commit in ledger.proposals[kind, repo].items()}:
            found.append(f"{repo}: the pull requests in git are not those that were acknowledged")
        said = hub.git(repo, "fsck", "--strict", "--no-progress", "--no-dangling", type=kind)
        if said:
            found.append(f"{repo}: git fsck: {said.decode()}")
    return found


def compare_tree(hub, place, clients, git):
    """Of one branch: what the clients know, what git lists and what the API lists."""
    wanted = {path: file.oid for client in clients for path, file in client.files[place].items()}
    lines = [line.split("\t", 1) for line in git("ls-tree", "-r", "-z", place.branch).split("\0") if line]
    held = {path: head.split()[2] for head, path in lines if path != ".gitattributes"}
    listed = {item["path"]: item["oid"] for item in Client(hub, 1, None).pages(place, quote(place.branch))
              if item["type"] == "file" and item["path"] != ".gitattributes"}
    found = []
    if held != wanted:
        found.append(f"{place}: git holds other files than were acknowledged: "
                     f"{sorted(set(held.items()) ^ set(wanted.items()))[:5]}")
    if listed != held:
        found.append(f"{place}: the API lists other ids than git")
    for client in clients:
        for path, file in client.files[place].items():
            if file.lfs and hub.content(place.id, path, place.branch, place.type) != file.data:
                found.append(f"{place}: {path} has other bytes")
    return found


def run(hub, count, seconds):
    """Let `count` clients work; (Ledger, findings). The repositories of REPOS must be new."""
    for kind, repo in REPOS:
        hub.create_repo(repo, kind)
        for branch in BRANCHES[1:]:
            hub.branch(repo, branch, type=kind)
    ledger, failed = Ledger(), threading.Event()
    clients = [Client(hub, number, ledger) for number in range(1, count + 1)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.run, args=(until, failed)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ledger, ledger.wrong or verify(hub, clients, ledger)


def report(ledger, count, seconds):
    """What was done and how long it took, as lines."""
    calls = sum(map(len, ledger.seconds.values()))
    commits = sum(map(len, ledger.commits.values()))
    lines = [f"{count} clients, {seconds:g} s: {calls} calls, {commits} commits and "
             f"{sum(map(len, ledger.proposals.values()))} pull requests acknowledged, refused and tried again: "
             f"{dict(ledger.refused) or 0}"]
    for what, spent in sorted(ledger.seconds.items()):
        spent.sort()
        lines.append(f"{what:14} {len(spent):6}   half within {spent[len(spent) // 2] * 1000:.0f} ms, "
                     f"99 of 100 within {spent[len(spent) * 99 // 100] * 1000:.0f} ms")
    return lines


def main():
    parser = argparse.ArgumentParser(description="Many clients at once; fails on the first wrong answer.")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with Hub() as hub:
        ledger, findings = run(hub, options.clients, options.seconds)
    print("\n".join([*report(ledger, options.clients, options.seconds), *findings]))
    print(f"{len(findings)} findings" if findings else "no wrong answer, no lost commit, git fsck is content")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
