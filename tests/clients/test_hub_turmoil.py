"""Many clients that move, delete, merge, squash and duplicate the same few repositories at once."""

import json
import os
import random
import subprocess
import threading
import time

from client import Hub

CLIENTS, SECONDS, PATIENCE = 16, 6, 90
REPOS = [f"user/r{number}" for number in range(5)]
ACTS = {"commit", "propose", "merge", "move", "delete", "create", "squash", "duplicate", "branch", "read"}


class Troublemaker:
    """One client, with a program of its own that depends only on its number."""

    def __init__(self, hub, number, seen):
        self.hub = hub
        self.random = random.Random(number)
        self.seen = seen

    def send(self, what, method, target, body=None):
        """One request, redirects followed; remembered with its status."""
        for _ in range(9):
            answer = self.hub.request(method, target, body)
            if answer.status != 307:
                break
            target = answer.headers["Location"]
        self.seen[what].append((answer.status, answer.body[:200]))
        return answer

    def commit(self, repo, what="commit", query=""):
        path = f"d{self.random.randrange(4)}/f{self.random.randrange(8)}"
        lines = [
            {"key": "header", "value": {"summary": what}},
            {"key": "file", "value": {"path": path, "content": str(self.random.random())}},
        ]
        body = "\n".join(map(json.dumps, lines)).encode()
        self.send(what, "POST", f"{self.hub.api(repo)}/commit/main{query}", body)

    def propose(self, repo):
        self.commit(repo, "propose", "?create_pr=1")

    def merge(self, repo):
        answer = self.send("list", "GET", f"{self.hub.api(repo)}/discussions?status=open")
        found = answer.json()["discussions"] if answer.status == 200 else []
        if found:
            target = f"{self.hub.api(repo)}/discussions/{self.random.choice(found)['num']}"
            self.send("details", "GET", target + "?diff=1")
            self.send("merge", "POST", target + "/merge", {})

    def move(self, repo):
        new = self.random.choice(REPOS) + self.random.choice(["", "-moved"])
        self.send("move", "POST", "/api/repos/move", {"fromRepo": repo, "toRepo": new, "type": "model"})

    def make_anew(self, repo):
        if self.random.random() < 0.3:
            self.send("delete", "DELETE", "/api/repos/delete", {"name": repo})
        self.send("create", "POST", "/api/repos/create", {"name": repo})

    def squash(self, repo):
        self.send("squash", "POST", f"{self.hub.api(repo)}/super-squash/main", {})

    def duplicate(self, repo):
        target = {"repository": self.random.choice(REPOS)}
        self.send("duplicate", "POST", f"{self.hub.api(repo)}/duplicate", target)

    def branch(self, repo):
        target = f"{self.hub.api(repo)}/branch/b{self.random.randrange(4)}"
        self.send("branch", "POST", target, {"overwrite": True})
        self.send("unbranch", "DELETE", target)

    def read(self, repo):
        for rest in (
            "tree/main?recursive=true&expand=true",
            "commits/main?limit=5",
            "refs?include_prs=1",
            "lfs-files",
        ):
            self.send("read", "GET", f"{self.hub.api(repo)}/{rest}")
        self.send("read", "GET", f"/{repo}/resolve/main/d1/f1")

    def run(self, until):
        """Go on until the time is over and every act has succeeded once (on a slow machine, later)."""
        acts = [
            self.propose,
            self.merge,
            self.move,
            self.make_anew,
            self.squash,
            self.duplicate,
            self.branch,
            self.read,
        ]
        while time.monotonic() < until or (missing(self.seen) and time.monotonic() < until + PATIENCE):
            self.random.choice([self.commit, *acts])(self.random.choice(REPOS))


def missing(seen):
    """The acts that have not succeeded yet."""
    return {act for act in ACTS if not any(status == 200 for status, _ in list(seen[act]))}


def test_no_answer_is_a_defect_and_git_is_sound():
    seen = {act: [] for act in [*ACTS, "list", "details", "unbranch"]}
    with Hub() as hub:
        for repo in REPOS:
            hub.create_repo(repo)
        until = time.monotonic() + SECONDS
        clients = [Troublemaker(hub, number, seen) for number in range(CLIENTS)]
        threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored = [
            path
            for path in os.listdir(f"{hub.root}/repos")
            if os.path.exists(f"{hub.root}/repos/{path}/hub.json")
        ]
        found = {item["id"]: item["sha"] for item in hub.call("GET", "/api/models?expand=sha")}
        assert len(stored) == len(found)
        for repo, head in found.items():
            assert hub.git(repo, "rev-parse", "main").decode().strip() == head
            git = [
                "git",
                "-c",
                "safe.directory=*",
                "-C",
                hub.git_dir(repo),
                "fsck",
                "--strict",
                "--no-dangling",
            ]
            done = subprocess.run(git, capture_output=True, text=True)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    broken = [(what, *item) for what, items in seen.items() for item in items if item[0] >= 500]
    assert broken == []
    assert missing(seen) == set()
