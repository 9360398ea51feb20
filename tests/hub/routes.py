"""The table of routes, matched on the raw path, and the context that every handler gets.

A pattern's `{T}` is `models|datasets|spaces|kernels`, `{id}` two segments, `{id.git}` the same with or without
`.git`, `{pre}` the optional prefix of datasets and spaces, `{name}` one segment and `{name*}` the rest.
Segments are split before they are percent-decoded, so `refs%2Fpr%2F1` is one.
"""

import base64
import binascii
import json
import re
import urllib.parse

from errors import ApiError, repo_not_found, unauthorized
from store import TYPES, valid_name

ROUTES = []
PIECES = {
    "T": "(?P<T>models|datasets|spaces|kernels)",
    "id": "(?P<id>[^/]+/[^/]+)",
    "id.git": r"(?P<id>[^/]+/[^/]+?)(?:\.git)?",
    "pre": "(?P<pre>datasets/|spaces/|kernels/|)",
}


def route(method, pattern):
    """Register a handler: `handler(context, **decoded names of the pattern)`."""
    def piece(match):
        name = match[1]
        return PIECES.get(name) or (f"(?P<{name[:-1]}>.*)" if name.endswith("*") else f"(?P<{name}>[^/]+)")

    def register(handler):
        parts = re.split(r"(\{[^}]+\})", pattern)
        regex = "".join(piece(re.match(r"\{(.+)\}", part)) if part.startswith("{") else re.escape(part)
                        for part in parts)
        ROUTES.append((method, pattern, re.compile(regex + r"\Z"), handler))
        return handler
    return register


def match_route(method, path):
    """(row of ROUTES, match of its pattern) or None. HEAD is answered by the handler of GET."""
    method = "GET" if method == "HEAD" else method
    for row in ROUTES:
        match = row[2].match(path) if row[0] == method else None
        if match:
            return row, match
    return None


def find_route(method, path):
    """(handler, arguments) or None."""
    found = match_route(method, path)
    if found is None:
        return None
    row, match = found
    return row[3], {name: urllib.parse.unquote(value) for name, value in match.groupdict().items()}


def encode_cursor(value):
    """An opaque text for where the next page of a listing begins."""
    return base64.b64encode(json.dumps(value).encode()).decode()


class Context:
    """One request to the Hub: who asks, what they sent, and the Hub that answers."""

    def __init__(self, hub, request, account):
        self.hub = hub
        self.store = hub.store
        self.config = hub.config.changed(request.settings)
        self.quotas = hub.quotas
        self.endpoint = hub.endpoint
        self.signer = hub.signer.using(self.config)
        self.request = request
        self.account = account
        self.one_word = False
        self.repos = []

    def json(self):
        """The request's body as a JSON object."""
        try:
            value = json.loads(self.request.stream.read() or b"{}")
        except (ValueError, RecursionError):
            raise ApiError(400, "The request body is not valid JSON") from None
        if not isinstance(value, dict):
            raise ApiError(400, "The request body must be a JSON object")
        return value

    def items(self, body, name, least, most):
        """A body's array of objects; 400 for anything else, or another number of them."""
        found = body.get(name)
        if not isinstance(found, list) or not least <= len(found) <= most:
            raise ApiError(400, f'"{name}" must be an array of {least} to {most} items')
        if not all(isinstance(item, dict) for item in found):
            raise ApiError(400, f'The items of "{name}" must be objects')
        return found

    def flag(self, name):
        return self.request.param(name, "").lower() in ("1", "true")

    def expand(self):
        """The property names of `expand=` and `expand[]=`."""
        return [value for name, value in self.request.params() if name in ("expand", "expand[]")]

    def number(self, name, default=None):
        """A parameter that must be a number."""
        text = self.request.param(name)
        if text is not None and not text.isdigit():
            raise ApiError(400, f"{name} must be a number")
        return default if text is None else int(text)

    def cursor(self):
        """What `encode_cursor` put into the `cursor` parameter, None on a first page."""
        text = self.request.param("cursor")
        try:
            return json.loads(base64.b64decode(text, validate=True)) if text else None
        except (binascii.Error, ValueError):
            raise ApiError(400, "Invalid cursor") from None

    def next_link(self, **changes):
        """The Link header to the next page: this address with some parameters changed, absolute."""
        kept = [(name, value) for name, value in self.request.params() if name not in changes]
        query = urllib.parse.urlencode([*kept, *changes.items()], quote_via=urllib.parse.quote)
        return "Link", f'<{self.endpoint}{self.request.path}?{query}>; rel="next"'

    # Access: the table of section 7.3 of the API notes

    def user(self):
        """The account, required."""
        if self.account is None:
            raise unauthorized()
        return self.account

    def repo(self, repo_type, repo_id, need="metadata"):
        """The repository, if the account may do what is needed: `metadata`, `bytes`, `write`, or
        `propose` (open a pull request). `repo_type` is singular, plural or a URL prefix."""
        kind = TYPES.get(repo_type.rstrip("/"), repo_type) or "model"
        repo = self.store.find(kind, repo_id) if all(map(valid_name, repo_id.split("/"))) else None
        if repo is None or not repo.readable(self.account):
            raise repo_not_found() if self.account else unauthorized(code="RepoNotFound")
        self.repos.append(repo)
        if repo.meta["disabled"]:
            raise ApiError(403, "Access to this resource is disabled.")
        if need == "bytes":
            self._need_grant(repo)
        elif need != "metadata":
            self._need_write(repo, need)
        return repo

    def _need_grant(self, repo):
        if not repo.gated or repo.granted(self.account):
            return
        if self.account is None:
            raise ApiError(401, f"Access to {repo.type} {repo.id} is restricted. You must have access to it and be "
                           "authenticated to access it. Please log in.", "GatedRepo")
        asked = repo.request_status(self.account)
        if asked == "pending":
            raise ApiError(403, f"Your request to access {repo.type} {repo.id} is awaiting a review from the repo "
                           "authors.", "GatedRepo")
        if asked == "rejected":
            raise ApiError(403, f"Your request to access {repo.type} {repo.id} has been rejected by the repo's "
                           "authors.", "GatedRepo")
        raise ApiError(403, f"Access to {repo.type} {repo.id} is restricted and you are not in the authorized list. "
                       f"Visit {self.endpoint}/{repo.prefix}{repo.id} to ask for access.", "GatedRepo")

    def _need_write(self, repo, need):
        account = self.user()
        allowed = account.writer if need == "propose" else account.writes(repo.namespace)
        if not allowed:
            raise ApiError(403, "Forbidden: you need write access to this repository with this token.")
