"""An HTTP proxy for tests that knows only CONNECT: a tunnel to anywhere, with a record and an optional password.

    with Proxy(credentials="user:secret") as proxy:
        env = {"https_proxy": proxy.url}
        …
        assert proxy.tunnels == [("127.0.0.1:43210", 200)]

It runs in threads of the process that starts it. Any other method is answered 405.
"""

import base64
import select
import socket
import threading

HEAD_MAX = 1 << 16
CHUNK = 1 << 18


class Proxy:
    """`url` holds the credentials; `address` (host:port) does not. `tunnels` lists (target, status) of every
    CONNECT that was answered, in order."""

    def __init__(self, credentials=None):
        self.wanted = "Basic " + base64.b64encode(credentials.encode()).decode() if credentials else None
        self.tunnels = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.url = f"http://{credentials + '@' if credentials else ''}{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """No new tunnels; those that are there end with their peers."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock:
            try:
                target, headers = _read_head(sock)
                if target is None:
                    sock.sendall(_answer(405, "Method Not Allowed"))
                elif self.wanted and headers.get("proxy-authorization") != self.wanted:
                    self._record(target, 407)
                    challenge = 'Proxy-Authenticate: Basic realm="test"'
                    sock.sendall(_answer(407, "Proxy Authentication Required", challenge))
                else:
                    self._tunnel(sock, target)
            except OSError:
                pass  # a peer left

    def _record(self, target, status):
        with self.lock:
            self.tunnels.append((target, status))

    def _tunnel(self, sock, target):
        host, _, port = target.rpartition(":")
        try:
            peer = socket.create_connection((host, int(port)), timeout=10)
        except OSError:
            self._record(target, 502)
            sock.sendall(_answer(502, "Bad Gateway"))
            return
        with peer:
            peer.settimeout(None)
            self._record(target, 200)
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pump(sock, peer)


def _answer(status, reason, *headers):
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", *headers, "Content-Length: 0", "Connection: close",
                        "", ""]).encode()


def _read_head(sock):
    """(target of a CONNECT or None, headers) of a request; nothing behind its head is taken off the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece or len(head) > HEAD_MAX:
            raise OSError("no request")
        head += piece
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split()
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return words[1] if len(words) == 3 and words[0] == "CONNECT" else None, headers


def _pump(one, other):
    """Copy both ways until both ends have said that they are done."""
    ways = {one: other, other: one}
    while ways:
        for source in select.select(list(ways), [], [])[0]:
            data = source.recv(CHUNK)
            if data:
                ways[source].sendall(data)
            else:
                ways.pop(source).shutdown(socket.SHUT_WR)
