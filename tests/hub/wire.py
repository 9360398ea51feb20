"""How an answer that met a fault goes over the wire: slowly, with a pause, changed, cut short, or reset.

Sizes and offsets count bytes of the body; of a chunked answer the payload, not the framing. http_engine.py
sends every other answer itself, and faster.
"""

import os
import re
import socket
import struct

from http_engine import FileSlice, Vanish

PIECE = 1 << 16
TICKS_PER_SECOND = 20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def abort(request):
    """End the connection by a reset (RST) instead of an orderly close."""
    request.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    raise Vanish("reset by a fault")


class Wire:
    """What is wrong with one answer. `released` is set when the fault is cleared, and ends all waiting."""

    def __init__(self, released):
        self.released = released
        self.cut = None  # the connection is closed after so many bytes
        self.reset = False  # …by a reset
        self.pause = None  # after so many bytes nothing is sent until the release
        self.rate = None  # bytes a second
        self.flip = None  # the byte at this offset is another one
        self.longer = 0  # what Content-Length says too much (or, below 0, too little)

    def send(self, request, response, progress):
        """Send the answer; raises Vanish where the connection is finished afterwards."""
        if self.longer and not hasattr(response.body, "__len__"):
            response.body = b"".join(response.body)
        request.sock.sendall(self._head(response))
        if request.method != "HEAD" and response.status not in (204, 304):
            self._send_body(request, response.body, progress)
        if self.reset:
            abort(request)
        if self.cut is not None or self.longer:
            raise Vanish("cut by a fault")

    def _head(self, response):
        def changed(match):
            return b"Content-Length: %d" % max(0, int(match[1]) + self.longer)

        return re.sub(rb"Content-Length: (\d+)", changed, response.head()) if self.longer else response.head()

    def _send_body(self, request, body, progress):
        sized = hasattr(body, "__len__")
        sent = 0
        for piece in self._pieces(body):
            while piece and sent != self.cut:
                self._pause(request, sent)
                part = piece[: self._room(sent)]
                progress(sent + len(part))
                part = self._flipped(part, sent)
                request.sock.sendall(part if sized else b"%x\r\n%s\r\n" % (len(part), part))
                sent, piece = sent + len(part), piece[len(part) :]
                if self.rate:
                    self.released.wait(len(part) / self.rate)
            if sent == self.cut:
                return
        if self.pause is not None and sent <= self.pause:
            self._pause(request, self.pause)
        if not sized and self.cut is None:
            request.sock.sendall(b"0\r\n\r\n")

    def _pieces(self, body):
        """The body in pieces that fit into memory."""
        if isinstance(body, FileSlice):
            for start in range(0, body.length, PIECE):
                yield os.pread(body.file.fileno(), min(PIECE, body.length - start), body.offset + start)
        elif hasattr(body, "__len__"):
            yield bytes(body)
        else:
            yield from body

    def _room(self, sent):
        """How many bytes may be sent before something has to happen."""
        stops = [stop - sent for stop in (self.cut, self.pause) if stop is not None and stop > sent]
        return min([PIECE, *stops, *([max(1, self.rate // TICKS_PER_SECOND)] if self.rate else [])])

    def _pause(self, request, sent):
        if sent == self.pause and request.wait_or_gone(self.released):
            raise Vanish("the peer left a stalled body")

    def _flipped(self, part, sent):
        if self.flip is None or not 0 <= self.flip - sent < len(part):
            return part
        changed = bytearray(part)
        changed[self.flip - sent] ^= 0x80
        return bytes(changed)
