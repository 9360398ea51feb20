"""The Hub's application: identity, rate limits, request ids, routing and errors."""

import base64
import binascii
import uuid

import api_access  # noqa: F401  (the api modules register their routes)
import api_accounts  # noqa: F401
import api_commit  # noqa: F401
import api_discussions  # noqa: F401
import api_files  # noqa: F401
import api_git  # noqa: F401
import api_history  # noqa: F401
import api_lfs  # noqa: F401
import api_manage  # noqa: F401
import api_refs  # noqa: F401
import api_repos  # noqa: F401
import api_safetensors  # noqa: F401
import names
from errors import ApiError, repo_not_found
from gitrepo import GitError, RefConflict
from quotas import Quotas
from routes import Context, find_route
from store import account_of_token


def identify(request):
    """The account behind Authorization, None without one; ApiError for a token nobody has."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    token = value.strip()
    if scheme.lower() == "basic":
        try:
            token = base64.b64decode(token, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            token = ""
    account = account_of_token(token) if token.isascii() else None
    if account is None:
        raise ApiError(401, "Invalid credentials in Authorization header")
    return account


class HubApp:
    def __init__(self, store, config, signer, endpoint):
        self.store = store
        self.config = config
        self.signer = signer
        self.endpoint = endpoint
        self.quotas = Quotas(config)

    def __call__(self, request):
        extra = [("X-Request-Id", f"Root=1-{uuid.uuid4().hex}"), ("Access-Control-Allow-Origin", "*")]
        try:
            response = self._answer(request, extra)
        except ApiError as error:
            if "/info/lfs/" in request.path:  # where git-lfs looks for the text
                error.body.setdefault("message", error.message)
            response = error.response()
        response.headers += extra
        return response

    def _answer(self, request, extra):
        account, refusal = None, None
        try:
            account = identify(request)
        except ApiError as error:
            refusal = error
        headers, exceeded = self.quotas.request(account, request.path)
        extra += headers
        if refusal or exceeded:
            raise refusal or exceeded
        old = names.look(self.store, self.config, account, request.path)
        if old and old.redirect:
            return names.redirect(self.config, request, old.path)
        return self._handle(request, account, old)

    def _handle(self, request, account, old):
        """The answer of the handler of a route; `old` if the path names the repository by one word."""
        found = find_route(request.method, old.path if old else request.path)
        if found is None:
            raise ApiError(404, "Sorry, we can't find the page you are looking for.")
        handler, arguments = found
        context = Context(self, request, account)
        context.one_word = old is not None
        try:
            return handler(context, **arguments)
        except (OSError, KeyError, GitError, RefConflict):
            if any(repo.lock.gone for repo in context.repos):  # deleted while it was being answered
                raise repo_not_found() from None
            raise
