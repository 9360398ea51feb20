"""Start and drive a test Hub from a test or a script (standard library only; imports nothing beside it).

    with Hub() as hub:
        hub.create_repo("user/model")
        hub.commit("user/model", {"config.json": b"{}", "w.safetensors": weights})
        hub.fault(method="GET", origin="data", cut_after=1000)
        ...
        assert [r["status"] for r in hub.requests()] == [...]
"""

import base64
import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse

PLURALS = {"model": "models", "dataset": "datasets", "space": "spaces", "kernel": "kernels"}
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/", "kernel": "kernels/"}


class HubError(Exception):
    """The Hub's answer was not 2xx: `.status`, `.headers`, `.body` (bytes)."""

    def __init__(self, method, target, status, headers, body):
        super().__init__(f"{method} {target}: {status} {body[:500].decode('utf-8', 'replace')}")
        self.status = status
        self.headers = headers
        self.body = body


class Answer:
    """A raw answer: `.status`, `.headers` (as http.client gives them), `.body`."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)


def quote(text):
    """Percent-encode a revision or path as one segment."""
    return urllib.parse.quote(text, safe="")


class Hub:
    """A Hub in a process of its own. With `root` its state stays there; without, it is temporary.
    More `options` are those of `python3 tests/hub`, e.g. `multipart_threshold=1000`."""

    def __init__(self, root=None, **options):
        self._temporary = root is None
        self.root = tempfile.mkdtemp(prefix="test-hub-") if root is None else os.fspath(root)
        self._command = [sys.executable, os.path.dirname(os.path.abspath(__file__)), "--root", self.root]
        for name, value in options.items():
            self._command += ["--" + name.replace("_", "-"), *([] if value is True else [str(value)])]
        self.process = None
        self.start()

    def start(self):
        """Start the server (again, after stop(); then on other ports unless options fix them)."""
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the test Hub did not start (exit status {self.process.wait()})")
        ready = json.loads(line)
        self.endpoint, self.data, self.tokens = ready["endpoint"], ready["data"], ready["tokens"]
        self.ca = ready.get("ca")  # with tls=True: the certificate to trust
        self.trust = ssl.create_default_context(cafile=self.ca) if self.ca else None

    def stop(self, keep=False):
        """End the server; a temporary root is removed unless `keep`."""
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process.stdout.close()
            self.process = None
        if self._temporary and not keep:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # HTTP

    def request(self, method, target, body=None, headers=None, token="user", base=None):
        """One request, no redirects followed, any status returned. `target` is a path of the Hub (raw:
        encode it yourself) or an absolute URL; a dict as body is sent as JSON; `token` is the name of
        an account, a literal hf_… token, or None."""
        base = urllib.parse.urlsplit(base or (target if "://" in target else self.endpoint))
        if "://" in target:
            target = target.split(base.netloc, 1)[1]
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if token:
            headers.setdefault("Authorization", "Bearer " + self.tokens.get(token, token))
        connection = self.connect(base)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            self.release(connection)

    def connect(self, base=None):
        """A connection to the Hub or to another origin, given as a split URL."""
        base = base or urllib.parse.urlsplit(self.endpoint)
        if base.scheme == "https":
            return http.client.HTTPSConnection(base.hostname, base.port, timeout=120, context=self.trust)
        return http.client.HTTPConnection(base.hostname, base.port, timeout=120)

    def release(self, connection):
        """Done with a connection: here each serves one request."""
        connection.close()

    def call(self, method, target, body=None, headers=None, token="user"):
        """Like request(), but the decoded JSON of a 2xx answer, else HubError."""
        answer = self.request(method, target, body, headers, token)
        if not 200 <= answer.status < 300:
            raise HubError(method, target, answer.status, answer.headers, answer.body)
        return json.loads(answer.body) if answer.body else None

    def _control(self, method, path, body=None):
        return self.call(method, "/_test/" + path, body, token=None)

    # The record and the faults

    def requests(self, since=0, **wanted):
        """The recorded requests with a number above `since`, in order of arrival; only those whose
        fields equal `wanted`, e.g. origin="data", method="GET"."""
        records = self._control("GET", f"requests?since={since}")["requests"]
        return [item for item in records if all(item[name] == value for name, value in wanted.items())]

    def last_seq(self):
        """The number of the newest request, for `requests(since=…)`."""
        return max((item["seq"] for item in self.requests()), default=0)

    def wait_for(self, condition, timeout=30, since=0):
        """Wait until `condition(list of requests)` is true, and return its value."""
        deadline, version = time.monotonic() + timeout, -1
        while True:
            left = max(0, deadline - time.monotonic())
            answer = self._control("GET", f"requests?since={since}&newer={version}&timeout={min(left, 60)}")
            value = condition(answer["requests"])
            if value:
                return value
            if left == 0:
                raise TimeoutError(f"not seen within {timeout} s; last requests: {answer['requests'][-5:]}")
            version = answer["version"]

    def fault(self, path=None, method=None, origin=None, times=1, skip=0, **action):
        """Add a fault (see README.md) and return its id, e.g. fault("/commit/", status=503),
        fault(origin="data", method="PUT", stall=True, times=-1)."""
        spec = {"path": path, "method": method, "origin": origin}
        spec = {name: value for name, value in spec.items() if value is not None}
        return self._control("POST", "faults", {**spec, "times": times, "skip": skip, "action": action})["id"]

    def faults(self):
        """All faults that are set, each with `id` and `hits`."""
        return self._control("GET", "faults")

    def clear_faults(self, fault=None):
        """Remove one fault or all of them; stalled requests go on."""
        self._control("DELETE", "faults" if fault is None else f"faults/{fault}")

    def config(self, **values):
        """Change settings (see config.py) and return all of them."""
        return self._control("POST", "config", values)

    def set_repo(self, repo_id, type="model", **flags):
        """Set private, gated (False, "auto", "manual"), disabled, granted (list of accounts), stale_head (the
        commit that the info of `main` gives whatever the branch holds; None for the truth)."""
        self._control("POST", "config", {"repo": {"type": type, "id": repo_id, **flags}})

    # Repositories

    def create_repo(self, repo_id, type="model", private=False, token="user", **extra):
        namespace, _, name = repo_id.partition("/")
        body = {"name": name, "organization": namespace, "type": type,
                "visibility": "private" if private else "public", **extra}
        if type == "space":
            body.setdefault("sdk", "static")
        return self.call("POST", "/api/repos/create", body, token=token)

    def delete_repo(self, repo_id, type="model", token="user"):
        namespace, _, name = repo_id.partition("/")
        self.call("DELETE", "/api/repos/delete", {"name": name, "organization": namespace, "type": type}, token=token)

    def move_repo(self, old, new, type="model", token="user"):
        """Give a repository another id; the old one redirects there."""
        self.call("POST", "/api/repos/move", {"fromRepo": old, "toRepo": new, "type": type}, token=token)

    def squash(self, repo_id, branch="main", message="Squash", type="model", token="user"):
        """Make one commit of a branch; its id. What it was stays readable until prune()."""
        target = f"{self.api(repo_id, type)}/super-squash/{quote(branch)}"
        return self.call("POST", target, {"message": message}, token=token)["commitId"]

    def propose(self, repo_id, files, branch="main", type="model", token="user", **options):
        """Open a pull request by a commit() of files; its number."""
        answer = self.commit(repo_id, files, branch, type, token, create_pr=True, **options)
        return int(answer["pullRequestUrl"].rpartition("/")[2])

    def merge(self, repo_id, number, type="model", token="user"):
        """Merge an open pull request."""
        self.call("POST", f"{self.api(repo_id, type)}/discussions/{number}/merge", {}, token=token)

    def alias(self, repo_id, alias, type="model"):
        """Make an old name lead to a repository, as if it had been moved; of one word (`gpt2`) or two."""
        self._control("POST", "alias", {"type": type, "id": repo_id, "alias": alias})

    def prune(self, repo_id, type="model"):
        """Delete every git object that no ref leads to: reads pinned to it are 404 from now on."""
        self._control("POST", "prune", {"type": type, "id": repo_id})

    def finish_copies(self):
        """Let the LFS files of duplicates arrive (switch `duplicate_files`); how many did."""
        return self._control("POST", "copies")["copied"]

    def branch(self, repo_id, name, start=None, type="model", token="user"):
        body = {"startingPoint": start} if start else {}
        self.call("POST", f"{self.api(repo_id, type)}/branch/{quote(name)}", body, token=token)

    def tag(self, repo_id, name, rev="main", message=None, type="model", token="user"):
        body = {"tag": name, "message": message} if message else {"tag": name}
        self.call("POST", f"{self.api(repo_id, type)}/tag/{quote(rev)}", body, token=token)

    def set_ref(self, repo_id, ref, target, type="model"):
        """Set any ref, e.g. refs/convert/parquet, to a revision; None deletes it."""
        self._control("POST", "ref", {"type": type, "id": repo_id, "ref": ref, "target": target})

    def api(self, repo_id, type="model"):
        """The path of a repository's API."""
        return f"/api/{PLURALS[type]}/{repo_id}"

    def head(self, repo_id, rev="main", type="model", token="user"):
        """The commit of a revision."""
        return self.call("GET", f"{self.api(repo_id, type)}/revision/{quote(rev)}?expand=sha", token=token)["sha"]

    def commit(self, repo_id, files=None, branch="main", type="model", token="user", summary="Test commit",
               description="", parent=None, delete_folders=(), create_pr=False):
        """Commit {path: bytes, or None to delete}; LFS or regular as preupload says. Waits for its turn.
        Returns the new commit's id (with `create_pr`: the whole answer)."""
        files = files or {}
        suffix = "?create_pr=1" if create_pr else ""
        added = {path: data for path, data in files.items() if data is not None}
        modes = self._preupload(repo_id, added, branch, type, token, suffix)
        lfs = {path: data for path, data in added.items() if data and modes[path] == "lfs"}
        self._upload_lfs(repo_id, lfs.values(), branch, type, token)
        header = {"summary": summary, "description": description, **({"parentCommit": parent} if parent else {})}
        lines = [{"key": "header", "value": header}]
        lines += [{"key": "deletedFolder", "value": {"path": path}} for path in delete_folders]
        lines += [{"key": "deletedFile", "value": {"path": path}} for path, data in files.items() if data is None]
        for path, data in added.items():
            if path in lfs:
                value = {"path": path, "algo": "sha256", "oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
                lines.append({"key": "lfsFile", "value": value})
            else:
                value = {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}
                lines.append({"key": "file", "value": value})
        answer = self._commit_in_turn(repo_id, lines, branch, type, token, suffix)
        return answer if create_pr else answer["commitOid"]

    def _commit_in_turn(self, *arguments, patience=30):
        """commit_lines; while another commit of the branch is under way (409), again."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self.commit_lines(*arguments)
            except HubError as error:
                if error.status != 409 or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def commit_lines(self, repo_id, lines, branch="main", type="model", token="user", suffix=""):
        """Send these lines (dicts) to the commit endpoint and return its answer."""
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        return self.call("POST", f"{self.api(repo_id, type)}/commit/{quote(branch)}{suffix}", body,
                         {"Content-Type": "application/x-ndjson"}, token)

    def _preupload(self, repo_id, added, branch, type, token, suffix):
        modes, items = {}, list(added.items())
        for start in range(0, len(items), 256):
            files = [{"path": path, "size": len(data), "sample": base64.b64encode(data[:512]).decode()}
                     for path, data in items[start : start + 256]]
            answer = self.call("POST", f"{self.api(repo_id, type)}/preupload/{quote(branch)}{suffix}",
                               {"files": files, "gitIgnore": ""}, token=token)
            modes.update({file["path"]: file["uploadMode"] for file in answer["files"]})
        return modes

    def _upload_lfs(self, repo_id, contents, branch, type, token):
        contents = {hashlib.sha256(data).hexdigest(): data for data in contents}
        if not contents:
            return
        objects = [{"oid": oid, "size": len(data)} for oid, data in contents.items()]
        answer = self.call("POST", f"/{PREFIXES[type]}{repo_id}.git/info/lfs/objects/batch",
                           {"operation": "upload", "transfers": ["basic"], "ref": {"name": branch},
                            "objects": objects}, token=token)
        for item in answer["objects"]:
            if "actions" in item:
                self.call("PUT", item["actions"]["upload"]["href"], contents[item["oid"]], token=None)

    def lfs_sparse(self, repo_id, path, size, seeds=None, type="model", branch="main", oid=None):
        """Commit an LFS file of any size in an instant: zeros, but for `seeds` {offset: bytes}. Unless
        `oid` is given its SHA-256 is made up. Returns {oid, size, commit}."""
        seeds = {str(offset): data.hex() for offset, data in (seeds or {}).items()}
        return self._control("POST", "lfs-sparse", {"type": type, "id": repo_id, "path": path, "size": size,
                                                    "seeds": seeds, "branch": branch, "oid": oid})

    def many_files(self, repo_id, path, files, per_folder=None, contents=1000, type="model", branch="main"):
        """Commit any number of small files in seconds (see seeding.py). Returns the commit."""
        return self._control("POST", "many-files", {"type": type, "id": repo_id, "path": path, "files": files,
                                                    "per_folder": per_folder, "contents": contents,
                                                    "branch": branch})["commit"]

    # What git holds

    def git_dir(self, repo_id, type="model"):
        """The path of the bare repository (the id in its canonical spelling)."""
        return os.path.join(self.root, "git", PLURALS[type], repo_id + ".git")

    def git(self, repo_id, *arguments, type="model"):
        """The output of a git command run in the bare repository, as bytes."""
        command = ["git", "-c", "safe.directory=*", "-C", self.git_dir(repo_id, type), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    def blob(self, repo_id, path, rev="main", type="model"):
        """What git holds at a path: the pointer's text for an LFS file."""
        return self.git(repo_id, "cat-file", "blob", f"{rev}:{path}", type=type)

    def content(self, repo_id, path, rev="main", type="model"):
        """The bytes of a file at a revision, LFS pointers followed."""
        data = self.blob(repo_id, path, rev, type)
        if not data.startswith(b"version https://git-lfs.github.com/spec/v1\n"):
            return data
        with open(self._object(repo_id, data, type), "rb") as file:
            return file.read()

    def lfs_path(self, repo_id, path, rev="main", type="model"):
        """Where the bytes of an LFS file are on disk."""
        return self._object(repo_id, self.blob(repo_id, path, rev, type), type)

    def _object(self, repo_id, pointer, type):
        oid = pointer.split(b"sha256:")[1][:64].decode()
        with open(os.path.join(self.git_dir(repo_id, type), "hub.json"), encoding="utf-8") as file:
            uid = json.load(file)["_id"]
        return os.path.join(self.root, "lfs", uid, oid[:2], oid[2:4], oid)

    def paths(self, repo_id, rev="main", type="model"):
        """The paths of all files at a revision."""
        names = self.git(repo_id, "ls-tree", "-r", "-z", "--name-only", rev, type=type)
        return [name.decode("utf-8", "surrogateescape") for name in names.split(b"\0") if name]

    def history(self, repo_id, rev="main", type="model"):
        """[(commit id, title)], newest first."""
        text = self.git(repo_id, "log", "--format=%H %s", rev, type=type).decode()
        return [tuple(line.split(" ", 1)) for line in text.splitlines()]
