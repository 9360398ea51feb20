"""How fast the test Hub is: `python3 tests/hub/speed.py`, as a command or from a test.

What is measured against the Hub must not be the Hub. Two promises are checked: the data origin gives a file at no
less than half the rate at which nginx gives the same file (one curl, and four with a quarter each), and listings
of a repository with a million files come at 30 pages a second or more, the first page included.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from client import Hub  # noqa: E402

UNPACKED = os.path.join(os.path.dirname(__file__), "..", "..", "build", "nginx", "usr", "sbin", "nginx")
NGINX_CONF = """\
worker_processes {workers}; daemon off; pid {dir}/pid; error_log {dir}/error.log; {user}
events {{ worker_connections 256; }}
http {{
	sendfile on; tcp_nopush on; access_log off; default_type application/octet-stream;
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
	server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
DATA_GOAL = 0.5  # of nginx
PAGES_GOAL = 30  # a second


def nginx_program():
    """The nginx that tests/setup unpacks, or an installed one; None without either."""
    return UNPACKED if os.path.exists(UNPACKED) else shutil.which("nginx")


@contextlib.contextmanager
def nginx(root):
    """An nginx that serves the files below `root`; the URL of that folder. It is given the listening socket, so
    that there is neither a race for the port nor a wait for it."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.setblocking(False)  # two workers wake up for one connection: the slower must not wait for another
        port = listener.getsockname()[1]
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(NGINX_CONF.format(dir=folder, root=root, port=port, workers=os.cpu_count(),
                                         user="user root;" if os.getuid() == 0 else ""))
        words = [nginx_program(), "-e", folder + "/error.log", "-c", conf, "-p", folder]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()],
                                   env={**os.environ, "NGINX": f"{listener.fileno()};"})
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def fetch(url, size, parts):
    """Bytes a second of `parts` curls at once, each with its share of the file."""
    bounds = [size * number // parts for number in range(parts + 1)]
    began = time.monotonic()
    curls = [subprocess.Popen(["curl", "-sSf", "--max-time", "60", "-o", os.devnull, "-r", f"{first}-{after - 1}", url])
             for first, after in zip(bounds, bounds[1:])]
    if any([curl.wait() for curl in curls]):
        raise RuntimeError("a curl failed")
    return size / (time.monotonic() - began)


def data_rates(hub, size):
    """[(parallel ranges, best rate of nginx, best rate of the data origin)] for one file of `size` bytes. The two
    take turns after a round that does not count (it fills the page cache); a machine that is busy with other
    things gets up to 15 turns."""
    repo = "user/speed-data"
    hub.create_repo(repo)
    hub.lfs_sparse(repo, "data.bin", size)
    url = hub.request("HEAD", f"/{repo}/resolve/main/data.bin").headers["location"]
    stored = hub.lfs_path(repo, "data.bin")
    found = []
    with nginx(os.path.dirname(stored)) as base:
        for parts in (1, 4):
            turns, theirs, ours = [], 0, 0
            while len(turns) < 6 or (ours < DATA_GOAL * theirs and len(turns) < 16):
                turns.append((fetch(f"{base}/{os.path.basename(stored)}", size, parts), fetch(url, size, parts)))
                theirs, ours = map(max, zip(*turns[1:] or turns))
            found.append((parts, theirs, ours))
    return found


def page_rates(hub, files):
    """[(what, pages, seconds, entries)] of whole listings: recursive, one folder, and folder by folder."""
    many, one = "user/speed-many", "user/speed-one"
    for repo, per_folder in ((many, 1000), (one, None)):
        hub.create_repo(repo)
        hub.many_files(repo, "data", files, per_folder=per_folder)
    folders = [f"{hub.api(many)}/tree/main/data/d{number:05d}" for number in range((files + 999) // 1000)]
    jobs = {
        "recursive": [f"{hub.api(many)}/tree/main?recursive=true"],
        "one folder": [f"{hub.api(one)}/tree/main/data"],
        "folder by folder": folders,
    }
    return [(what, *list_all(hub, targets)) for what, targets in jobs.items()]


def list_all(hub, targets):
    """Follow every target to its last page on one connection: (pages, seconds, files)."""
    connection = hub.connect()
    waiting, pages, files = list(reversed(targets)), 0, 0
    began = time.monotonic()
    while waiting:
        connection.request("GET", waiting.pop())
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"a page was answered {answer.status}: {body[:200]!r}")
        pages += 1
        files += body.count(b'"type": "file"')
        link = answer.headers.get("link")
        if link:
            waiting.append(link[1 : link.index(">")].removeprefix(hub.endpoint))
    connection.close()
    return pages, time.monotonic() - began, files


def main():
    parser = argparse.ArgumentParser(description="Measure the test Hub and check what it promises.")
    parser.add_argument("--files", type=int, default=1_000_000, help="files of the listed repositories")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="size of the file that is fetched")
    options = parser.parse_args()
    slow = 0
    with Hub() as hub:
        for parts, theirs, ours in data_rates(hub, options.bytes):
            print(f"data origin, {parts} curl: {ours / 1e6:.0f} MB/s, {ours / theirs:.2f} of nginx "
                  f"({theirs / 1e6:.0f} MB/s; goal {DATA_GOAL})", flush=True)
            slow += ours < DATA_GOAL * theirs
        for what, pages, seconds, files in page_rates(hub, options.files):
            print(f"tree, {what}: {pages} pages of {files} files, {pages / seconds:.0f} pages/s "
                  f"(goal {PAGES_GOAL})", flush=True)
            slow += pages < PAGES_GOAL * seconds
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
