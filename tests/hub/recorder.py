"""The record of every request, in order of arrival, and a condition to wait on.

Requests to the control interface are not recorded. A request is recorded when its head has been read
and completed while it is answered: `status` is null until an answer is sent (and stays null if none
ever is), `end` is null while the exchange lasts.
"""

import threading
import time


class Recorder:
    def __init__(self):
        self.records = []
        self.version = 0
        self.changed = threading.Condition()

    def begin(self, request):
        record = {
            "origin": request.origin,
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "range": request.headers.get("range"),
            "agent": request.headers.get("user-agent"),
            "token": "authorization" in request.headers,
            "cookie": "cookie" in request.headers,
            "status": None,
            "sent": 0,
            "received": 0,
            "start": time.time(),
            "end": None,
            "fault": None,
        }
        with self.changed:
            record["seq"] = len(self.records) + 1
            self.records.append(record)
            self._bump()
        return record

    def update(self, record, **fields):
        with self.changed:
            record.update(fields)
            self._bump()

    def finish(self, record, received):
        self.update(record, received=received, end=time.time())

    def since(self, seq, after_version=None, timeout=0):
        """The records numbered above `seq` and the version. With `after_version`, first wait until
        something is newer than that version or `timeout` seconds have gone."""
        with self.changed:
            if after_version is not None:
                self.changed.wait_for(lambda: self.version > after_version, timeout)
            return [dict(record) for record in self.records[seq:]], self.version

    def _bump(self):
        self.version += 1
        self.changed.notify_all()
