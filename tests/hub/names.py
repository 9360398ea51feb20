"""Old names of repositories: where a repository went, and where a request for an old name is sent.

`ROOT/moved.json` maps a type and an old id, in lower case, to the id that took its place. A one-word id
(`gpt2`) is an old name too. The list is consulted only for ids that no repository has, so that a
repository made anew under an old name ends the redirect.
"""

import collections
import json
import os
import re
import urllib.parse

from http_engine import Response

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space", "kernels": "kernel"}
PLACES = re.compile(
    r"(/api/(?:resolve-cache/)?(models|datasets|spaces|kernels)/|/(?:(datasets|spaces|kernels)/)?)([^?]+)"
)

Look = collections.namedtuple("Look", "path redirect")


class Names:
    def __init__(self, root):
        self.path = os.path.join(root, "moved.json")
        self.moved = {}
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                self.moved = {tuple(old): new for old, new in json.load(file)}

    def _save(self):
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(list(self.moved.items()), file)
        os.replace(self.path + ".new", self.path)

    def add(self, repo_type, old, new):
        """`old` leads to `new` from now on, and `new` itself to nowhere else."""
        self.take(repo_type, new)
        self.moved[repo_type, old.lower()] = new
        self._save()

    def take(self, repo_type, repo_id):
        """An id belongs to a repository from now on: what led through it leads past it."""
        beyond = self.moved.pop((repo_type, repo_id.lower()), None)
        for (kind, old), new in list(self.moved.items()):
            if beyond and kind == repo_type and new.lower() == repo_id.lower():
                self.moved[kind, old] = beyond
        self._save()

    def forget(self, repo_type, repo_id):
        """What led to an id ends: the repository was deleted."""
        ends = {repo_id.lower()}
        while ends:
            gone = ends.pop()
            ends |= {
                old for (kind, old), new in self.moved.items() if kind == repo_type and new.lower() == gone
            }
            for old in ends:
                self.moved.pop((repo_type, old), None)
        self._save()

    def next(self, repo_type, repo_id):
        """Where an old name leads, None for a name that leads nowhere."""
        return self.moved.get((repo_type, repo_id.lower()))

    def last(self, repo_type, repo_id):
        """The id at the end of the way from an old name."""
        while (new := self.next(repo_type, repo_id)) is not None:
            repo_id = new
        return repo_id


def look(store, config, account, path):
    """Look(path, redirect) for a raw path with an old name in it, else None. The path is the one with the
    new name; `redirect` is false where the Hub answers at once."""
    place = PLACES.match(path)
    if not place:
        return None
    head, kind = place[1], TYPES.get(place[2] or place[3], "model")
    for words in (2, 1):
        old, suffix, rest = _split(place[4], words)
        if store.find(kind, old):
            return None
        new = store.names.next(kind, old)
        if new is None:
            continue
        target = store.find(kind, store.names.last(kind, new))
        if target is None or not target.readable(account):
            return None
        new = target.id if config.rename_hops == "last" else new
        direct = words == 1 and rest.startswith("/resolve/") and config.one_word_resolve == "direct"
        return Look(f"{head}{target.id if direct else new}{suffix}{rest}", not direct)
    return None


def _split(text, words):
    """(id, `.git` or nothing, what follows) of a path that begins with an id of one or two words."""
    parts = text.split("/")
    rest = "".join("/" + part for part in parts[words:])
    name = "/".join(parts[:words])
    plain = name.removesuffix(".git")
    return urllib.parse.unquote(plain), name[len(plain) :], rest


def redirect(config, request, path):
    """The answer that sends a request to another path of the Hub, method and body included."""
    where = path + ("?" + request.query if request.query else "")
    body = f"Temporary Redirect. Redirecting to {where}".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Location", where), ("Vary", "Origin, Accept")]
    return Response(config.rename_status, body, headers)
