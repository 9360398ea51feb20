"""The interface for tests, under /_test/ on the Hub's port; nothing here is recorded or made to fail.

README.md describes it. Bodies and answers are JSON; a wrong request is answered 400 with the reason.
"""

import hashlib
import json
import os
import re

import attributes
from errors import ApiError
from gitrepo import REGULAR, Entry, TreeEditor, pointer_text
from http_engine import json_response
from seeding import many_files
from store import SHA256, valid_name

REPO_FLAGS = {"private", "gated", "disabled", "granted", "stale_head"}


class Control:
    def __init__(self, store, config, recorder, faults, quit_event):
        self.store = store
        self.config = config
        self.recorder = recorder
        self.faults = faults
        self.quit_event = quit_event

    def __call__(self, request):
        """Answer a control request; None if it is not one."""
        match = re.match(r"/_test/([a-z-]+)(?:/(\d+))?\Z", request.path)
        if not match:
            return None
        try:
            handler = getattr(self, f"{request.method.lower()}_{match[1].replace('-', '_')}", None)
            if handler is None:
                raise ApiError(404, f"No such control: {request.method} {request.path}")
            return json_response(handler(request, *([int(match[2])] if match[2] else [])))
        except (ValueError, KeyError, TypeError) as error:
            return ApiError(400, f"{type(error).__name__}: {error}").response()
        except ApiError as error:
            return error.response()

    def get_requests(self, request):
        newer = request.param("newer")
        records, version = self.recorder.since(int(request.param("since", "0")),
                                               None if newer is None else int(newer),
                                               float(request.param("timeout", "0")))
        return {"requests": records, "version": version}

    def get_faults(self, request):
        return self.faults.describe()

    def post_faults(self, request):
        return {"id": self.faults.add(_body(request)).id}

    def delete_faults(self, request, number=None):
        return {"cleared": self.faults.clear(number)}

    def get_config(self, request):
        return vars(self.config)

    def post_config(self, request):
        body = _body(request)
        flags = body.pop("repo", None)
        self.config.update(body)
        if flags:
            self._set_flags(flags)
        return vars(self.config)

    def _set_flags(self, flags):
        repo = self._repo(flags)
        changes = {name: value for name, value in flags.items() if name not in ("type", "id")}
        if set(changes) - REPO_FLAGS:
            raise ValueError(f"unknown flags {sorted(set(changes) - REPO_FLAGS)}")
        with repo.lock:
            repo.meta.update(changes)
            repo.save()

    def _repo(self, body):
        repo = self.store.find(body.get("type") or "model", body["id"])
        if repo is None:
            raise ValueError(f"no such repository {body['id']}")
        return repo

    def post_ref(self, request):
        """Set any ref (refs/convert/parquet, a branch moved by force) to a revision; null deletes it."""
        body = _body(request)
        repo = self._repo(body)
        with repo.lock:
            old = repo.git.ref(body["ref"])
            if body["target"] is None:
                repo.git.delete_ref(body["ref"], old)
                return {"target": None}
            commit = repo.resolve(body["target"])
            repo.git.update_ref(body["ref"], commit.oid, old)
        return {"target": commit.oid}

    def post_alias(self, request):
        """Make an old name, of one or two words, lead to a repository, as if it had been moved."""
        body = _body(request)
        repo = self._repo(body)
        alias = body["alias"]
        if not 1 <= len(alias.split("/")) <= 2 or not all(map(valid_name, alias.split("/"))):
            raise ValueError(f"not an id: {alias}")
        if self.store.find(repo.type, alias):
            raise ValueError(f"{alias} is a repository")
        self.store.names.add(repo.type, alias, repo.id)
        return {}

    def post_prune(self, request):
        """Delete every git object that no ref leads to, as the Hub does some day after a super-squash."""
        repo = self._repo(_body(request))
        with repo.lock:
            repo.git.prune()
        return {}

    def post_copies(self, request):
        """Do the copying that duplicates of repositories wait for."""
        copies, self.store.late_copies = self.store.late_copies, []
        for source, target, oids in copies:
            for oid in oids:
                source.copy_lfs(target, oid)
        return {"copied": sum(len(oids) for _, _, oids in copies)}

    def post_lfs_sparse(self, request):
        """Store an LFS object of any size as a sparse file and commit its pointer."""
        body = _body(request)
        repo = self._repo(body)
        size, path, branch = body["size"], body["path"], body.get("branch") or "main"
        seeds = {int(offset): bytes.fromhex(data) for offset, data in (body.get("seeds") or {}).items()}
        oid = body.get("oid") or hashlib.sha256(repr((repo.uid, size, sorted(seeds.items()))).encode()).hexdigest()
        if not SHA256.match(oid):
            raise ValueError("oid is 64 hex digits")
        file, temporary = self.store.temporary()
        with file:
            file.truncate(size)
            for offset, data in seeds.items():
                os.pwrite(file.fileno(), data, offset)
            if os.fstat(file.fileno()).st_size != size:
                raise ValueError("a seed lies beyond the size")
        repo.adopt_lfs(oid, temporary)
        with repo.lock:
            ref = f"refs/heads/{branch}"
            head = repo.git.commit(repo.git.ref(ref))
            editor = TreeEditor(repo.git, head.tree)
            editor.put(path, Entry(REGULAR, repo.git.write_blob(pointer_text(oid, size))))
            if not attributes.is_lfs(path, repo.reader(head.tree)):
                text = repo.reader(head.tree)(".gitattributes") or ""
                blob = repo.git.write_blob((text + attributes.tracking_line(path)).encode())
                editor.put(".gitattributes", Entry(REGULAR, blob))
            commit = repo.git.write_commit(editor.write(), [head.oid], repo.namespace, f"Add {path}", "")
            repo.git.update_ref(ref, commit, head.oid)
        return {"oid": oid, "size": size, "commit": commit}

    def post_many_files(self, request):
        """Commit any number of small files in seconds."""
        body = _body(request)
        repo = self._repo(body)
        wanted = {name: value for name, value in body.items() if name not in ("type", "id")}
        return {"commit": many_files(repo, **wanted)}

    def post_quit(self, request):
        self.quit_event.set()
        return {}


def _body(request):
    body = json.loads(request.stream.read() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body
