"""git over HTTP: requests are handed to git's own http-backend (a CGI program).

Whoever may read the bytes may fetch; pushing needs write access. A credential comes as Basic
authentication with the token as the password.
"""

import os
import ssl
import subprocess
import threading

from errors import ApiError
from gitrepo import git_environment
from http_engine import CHUNK, Response
from routes import route


@route("GET", "/{pre}{id.git}/info/refs")
def info_refs(context, pre, id):
    service = context.request.param("service")
    if service not in ("git-upload-pack", "git-receive-pack"):
        raise ApiError(403, "Only smart HTTP is supported")
    return _backend(context, pre, id, "info/refs", service)


@route("POST", "/{pre}{id.git}/git-upload-pack")
def upload_pack(context, pre, id):
    return _backend(context, pre, id, "git-upload-pack", "git-upload-pack")


@route("POST", "/{pre}{id.git}/git-receive-pack")
def receive_pack(context, pre, id):
    return _backend(context, pre, id, "git-receive-pack", "git-receive-pack")


def _backend(context, pre, id, path, service):
    repo = context.repo(pre, id, "write" if service == "git-receive-pack" else "bytes")
    request = context.request
    env = {
        **git_environment(),
        "GIT_PROJECT_ROOT": repo.git.path, "PATH_INFO": "/" + path, "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.method, "QUERY_STRING": request.query, "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
    }
    if context.account:
        env["REMOTE_USER"] = context.account.name
    if "content-length" in request.headers:
        env["CONTENT_LENGTH"] = request.headers["content-length"]
    if isinstance(request.sock, ssl.SSLSocket):  # a TLS connection is not for two threads at once
        request.spool()
    process = subprocess.Popen(["git", "http-backend"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               cwd=os.path.dirname(repo.git.path))
    feeder = threading.Thread(target=_feed, args=(request, process.stdin), daemon=True)
    feeder.start()
    status, headers = _read_head(process.stdout)
    return Response(status, _pieces(process, feeder), headers, duplex=True)


def _feed(request, pipe):
    try:
        with pipe:
            while piece := request.stream.read1(CHUNK):
                pipe.write(piece)
    except BrokenPipeError:
        pass


def _read_head(stream):
    """(status, headers) of a CGI answer."""
    status, headers = 200, []
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers.append((name, value.strip()))
    return status, headers


def _pieces(process, feeder):
    """The body of a CGI answer; the program is waited for at the end."""
    try:
        while piece := process.stdout.read1(CHUNK):
            yield piece
    finally:
        process.stdout.close()
        process.wait()
        feeder.join()
