"""Answers of the Hub that say no: status, X-Error-Code, X-Error-Message and a JSON object."""

import re

from http_engine import json_response

MAX_HEADER = 1000  # characters of a message in X-Error-Message; the body has all of it


class ApiError(Exception):
    def __init__(self, status, message, code=None, headers=(), body=()):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = list(headers)
        self.body = dict(body)

    def response(self):
        text = self.message[:MAX_HEADER].encode("ascii", "backslashreplace").decode()
        text = re.sub(r"[\x00-\x1f\x7f]", " ", text)
        headers = [("X-Error-Message", text), *self.headers]
        if self.code:
            headers.append(("X-Error-Code", self.code))
        if self.status == 401:
            headers.append(("WWW-Authenticate", 'Basic realm="Authentication required"'))
        return json_response({"error": self.message, **self.body}, self.status, headers)


def unauthorized(code=None):
    return ApiError(401, "Invalid username or password.", code)


def repo_not_found():
    return ApiError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision):
    return ApiError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message="Entry not found", commit=None):
    headers = [("X-Repo-Commit", commit)] if commit else []
    return ApiError(404, message, "EntryNotFound", headers)
