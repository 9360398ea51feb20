"""One commit at a time, and how long it may take.

While a commit works, others of its branch are refused (409). It works in a thread of its own, because its
client is told 504 when it takes longer than the server waits, and it may land all the same.
"""

import threading
import time

from errors import ApiError
from http_engine import Response

BUSY = "Another commit operation is in progress for this repository. Please try again later."
TICK_S = 0.005
GATEWAY = (
    b"<html><head><title>504 Gateway Time-out</title></head><body><h1>504 Gateway Time-out</h1></body></html>"
)


class TooLate(Exception):
    """The time limit was over before the branch was changed."""


class Work:
    """One commit under way: `do(work)` makes it, and asks `check` last of all before the branch moves."""

    def __init__(self, config, do):
        self.config = config
        self.do = do
        self.began = time.monotonic()
        self.deadline = self.began + config.time_limit_ms / 1000
        self.finished = threading.Event()
        self.outcome = None

    def check(self):
        if self.config.late_commit == "fails" and time.monotonic() >= self.deadline:
            raise TooLate

    def run(self, release):
        try:
            while time.monotonic() < self.began + self.config.commit_takes_ms / 1000:  # a test may shorten it
                time.sleep(TICK_S)
            self.outcome = self.do(self)
        except Exception as error:
            self.outcome = error
        finally:
            release()
            self.finished.set()


def answer(repo, config, ref, do):
    """The answer of `do(work)`, made under the lock that the switch `commit_lock` says; 409, or 504."""
    key = {"branch": ref, "repository": "", "none": None}[config.commit_lock]
    if key is not None:
        with repo.lock:
            if key in repo.committing:
                raise ApiError(409, BUSY)
            repo.committing.add(key)
    work = Work(config, do)
    threading.Thread(target=work.run, args=(lambda: repo.committing.discard(key),), daemon=True).start()
    if not work.finished.wait(max(0, work.deadline - time.monotonic())) or isinstance(work.outcome, TooLate):
        return Response(504, GATEWAY, [("Content-Type", "text/html")])
    if isinstance(work.outcome, Exception):
        raise work.outcome
    return work.outcome
