"""The Hub's application: identity, rate limits, request ids, routing and errors."""

import base64
import binascii
import threading
import time
import uuid

import api_commit  # noqa: F401  (the api modules register their routes)
import api_discussions  # noqa: F401
import api_files  # noqa: F401
import api_git  # noqa: F401
import api_lfs  # noqa: F401
import api_refs  # noqa: F401
import api_repos  # noqa: F401
from errors import ApiError
from routes import Context, find_route
from store import account_of_token


class RateLimit:
    """Requests per account and bucket in fixed windows."""

    def __init__(self, config):
        self.config = config
        self.lock = threading.Lock()
        self.windows = {}

    def count(self, bucket, name):
        """Count one request: (headers for its answer, whether it is over the quota)."""
        quota, width, now = self.config.rate_quota[bucket], self.config.rate_window_s, time.time()
        with self.lock:
            began, used = self.windows.get((bucket, name), (now, 0))
            if now >= began + width:
                began, used = now, 0
            used += 1
            self.windows[bucket, name] = began, used
        left = max(1, int(began + width - now))
        headers = [
            ("RateLimit", f'"{bucket}";r={max(0, quota - used)};t={left}'),
            ("RateLimit-Policy", f'"fixed window";"{bucket}";q={quota};w={width}'),
        ]
        return headers, used > quota


def bucket_of(path):
    if "/resolve/" in path or path.startswith("/api/resolve-cache/"):
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"


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
        self.rate_limit = RateLimit(config)

    def __call__(self, request):
        extra = [("X-Request-Id", f"Root=1-{uuid.uuid4().hex}"), ("Access-Control-Allow-Origin", "*")]
        try:
            response = self._answer(request, extra)
        except ApiError as error:
            response = error.response()
        response.headers += extra
        return response

    def _answer(self, request, extra):
        account, refusal = None, None
        try:
            account = identify(request)
        except ApiError as error:
            refusal = error
        headers, exceeded = self.rate_limit.count(bucket_of(request.path), account.name if account else "")
        extra += headers
        if refusal:
            raise refusal
        if exceeded:
            raise ApiError(429, "We had to rate limit you: you have reached the quota of requests.")
        found = find_route(request.method, request.path)
        if found is None:
            raise ApiError(404, "Sorry, we can't find the page you are looking for.")
        handler, arguments = found
        return handler(Context(self, request, account), **arguments)
