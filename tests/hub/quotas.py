"""How often an account may ask (requests per bucket) and act (commits, new repositories), in fixed windows.

An account's window begins with its first request and is as long as the settings say; the next request after
its end begins the next one, and so does a change of the quota or of the length.
"""

import math
import threading
import time

from errors import ApiError

ACTIONS = {
    "commit": "repository commits",
    "create": "repository creation",
    "discussion": "discussion and pull request creation",
}


def bucket_of(path, lfs_bucket="api"):
    """The bucket that a request counts in: `resolvers`, `api` or `pages`."""
    if "/resolve/" in path or path.startswith("/api/resolve-cache/"):
        return "resolvers"
    if "/info/lfs/" in path:
        return lfs_bucket
    return "api" if path.startswith("/api/") else "pages"


class Windows:
    """Counters that begin anew when their window is over."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counters = {}

    def count(self, key, quota, width):
        """Count one more: (how many there are with it, seconds until the window's end)."""
        now = time.monotonic()
        with self.lock:
            began, used = self.counters.get((key, quota, width), (now, 0))
            if now >= began + width:
                began, used = now, 0
            self.counters[key, quota, width] = began, used + 1
        return used + 1, began + width - now


class Quotas:
    def __init__(self, config):
        self.config = config
        self.requests = Windows()
        self.acts = Windows()

    def request(self, account, path):
        """Count a request of an account (None: nobody's): (headers for its answer, the refusal or None)."""
        bucket = bucket_of(path, self.config.lfs_bucket)
        quota, width = self.config.rate_quota[bucket], self.config.rate_window_s
        used, left = self.requests.count((bucket, account and account.name), quota, width)
        headers = [
            ("RateLimit", f'"{bucket}";r={max(0, quota - used)};t={max(1, math.ceil(left))}'),
            ("RateLimit-Policy", f'"fixed window";"{bucket}";q={quota};w={max(1, math.ceil(width))}'),
        ]
        if used <= quota:
            return headers, None
        minutes = width / 60
        return headers, ApiError(
            429,
            f"We had to rate limit you, you hit the quota of {quota} {bucket} requests per "
            f"{minutes:g} minutes period.",
        )

    def action(self, account, name):
        """Count an action (a key of ACTIONS); ApiError 429 if the account has done it too often."""
        quota, width = self.config.action_quota[name], self.config.action_window_s
        if quota is None:
            return
        used, left = self.acts.count((name, account.name), quota, width)
        if used > quota:
            hours = max(1, round(width / 3600))
            raise ApiError(
                429,
                f"You have exceeded the rate limit for {ACTIONS[name]} ({quota} per hour). You can "
                f"retry this action in about {hours} hour{'s' if hours > 1 else ''}.",
                headers=self._retry_after(left),
            )

    def _retry_after(self, left):
        return [("Retry-After", str(max(1, math.ceil(left))))] if self.config.action_wait == "header" else []
