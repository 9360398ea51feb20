"""Bad answers on request: which requests meet a fault, and what each kind of fault does.

A fault is `{"method"?, "path"?, "origin"?, "times", "skip", "action": {NAME: VALUE, …}}`; `path` is a
regular expression searched in the raw path with its query. The first fault that matches and is not
used up is taken. A new kind of fault is one subclass of `Action` and one line in `ACTIONS`.
"""

import itertools
import json
import re
import threading

from http_engine import Response, Vanish


class Action:
    """`before` may answer instead of the work being done; `after` may change the finished answer.
    `released` is set when the fault is cleared."""

    def __init__(self, value, spec, released):
        self.value = value
        self.spec = spec
        self.released = released

    def before(self, request):
        return None

    def after(self, request, response):
        return response


class Status(Action):
    """Answer this status, with `body` (text, or any JSON value) and `headers`; nothing is done."""

    def before(self, request):
        return _answer(self.value, self.spec)


class Delay(Action):
    """Wait this many milliseconds before the work; the work is done even if the peer leaves."""

    def before(self, request):
        self.released.wait(self.value / 1000)


class DelayAnswer(Action):
    """Do the work, then wait this many milliseconds before the answer."""

    def after(self, request, response):
        self.released.wait(self.value / 1000)
        return response


class CutAfter(Action):
    """Send the head and this many bytes of the body, then close the connection."""

    def after(self, request, response):
        response.cut = self.value
        return response


class LoseAnswer(Action):
    """Do the work, then close the connection without a byte."""

    def after(self, request, response):
        response.close()
        raise Vanish("answer lost by a fault")


class LoseAnswerStatus(Action):
    """Do the work, then answer this status instead."""

    def after(self, request, response):
        response.close()
        return _answer(self.value, self.spec)


class Stall(Action):
    """Send nothing until the fault is cleared; then go on, unless the peer has left meanwhile."""

    def before(self, request):
        if request.wait_or_gone(self.released):
            raise Vanish("the peer left a stalled request")


class StallAfter(Action):
    """Send the head and this many bytes of the body, then nothing until the fault is cleared."""

    def after(self, request, response):
        response.pause = (self.value, self.released)
        return response


ACTIONS = {
    "status": Status,
    "delay_ms": Delay,
    "delay_answer_ms": DelayAnswer,
    "cut_after": CutAfter,
    "lose_answer": LoseAnswer,
    "lose_answer_status": LoseAnswerStatus,
    "stall": Stall,
    "stall_after": StallAfter,
}
DETAILS = {"body", "headers"}


def _answer(status, spec):
    body = spec.get("body", {"error": f"Answered {status} by a fault"})
    kind = "text/plain; charset=utf-8"
    if not isinstance(body, str):
        body, kind = json.dumps(body), "application/json; charset=utf-8"
    headers = dict(spec.get("headers", {}))
    if "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = kind
    return Response(status, body.encode(), headers.items())


class Fault:
    """One fault: what it matches, how often, and its actions in the order they were given."""

    def __init__(self, number, spec):
        unknown = set(spec) - {"method", "path", "origin", "times", "skip", "action"}
        action = spec.get("action") or {}
        unknown |= set(action) - set(ACTIONS) - DETAILS
        if unknown or not set(action) & set(ACTIONS):
            raise ValueError(f"unknown or missing in a fault: {sorted(unknown) or 'action'}")
        self.id = number
        self.spec = spec
        self.path = re.compile(spec.get("path", ""))
        self.skip = spec.get("skip", 0)
        self.times = spec.get("times", 1)
        self.hits = 0
        self.released = threading.Event()
        self.actions = [
            ACTIONS[name](value, action, self.released)
            for name, value in action.items()
            if name in ACTIONS and value is not False
        ]

    def matches(self, request):
        return (
            self.spec.get("method") in (None, request.method)
            and self.spec.get("origin") in (None, request.origin)
            and self.path.search(request.target) is not None
        )

    def before(self, request):
        for action in self.actions:
            response = action.before(request)
            if response is not None:
                return response
        return None

    def after(self, request, response):
        for action in self.actions:
            response = action.after(request, response)
        return response

    def describe(self):
        return {"id": self.id, "hits": self.hits, **self.spec}


class Faults:
    """All faults that a test has set, in the order in which they were added."""

    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.active = []

    def add(self, spec):
        fault = Fault(next(self.numbers), spec)
        with self.lock:
            self.active.append(fault)
        return fault

    def match(self, request):
        with self.lock:
            for fault in self.active:
                if fault.times == 0 or not fault.matches(request):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                fault.hits += 1
                return fault
        return None

    def clear(self, number=None):
        """Remove one fault or all, and free whoever is stalled or delayed by them."""
        with self.lock:
            gone = [fault for fault in self.active if number in (None, fault.id)]
            self.active = [fault for fault in self.active if fault not in gone]
        for fault in gone:
            fault.released.set()
        return len(gone)

    def describe(self):
        with self.lock:
            return [fault.describe() for fault in self.active]
