"""Stands between the box and a bucket's server, and misbehaves when told to.

It keeps its port for as long as it lives, also while nobody listens there, and takes requests one after another on
each connection. A manner holds for every request whose head comes while it holds. Standard library only.
"""

import contextlib
import hashlib
import http.client
import http.server
import os
import re
import socket
import struct
import threading
import urllib.parse

# What a bucket, or what is in front of it, may do, and how: see `Handler.answer`.
MANNERS = (
    "refuses",
    "resets",
    "black_hole",
    "forbids",
    "unavailable",
    "missing",
    "wrong_tag",
    "truncates",
    "greets",
    "corrupts",
    "forgets",
)
REFUSALS = {
    "forbids": (403, "AccessDenied"),
    "unavailable": (503, "ServiceUnavailable"),
    "missing": (404, "NoSuchBucket"),
}


class Proxy:
    """`endpoint` is what the box is told; `behave` changes what happens there."""

    def __init__(self, endpoint):
        place = urllib.parse.urlsplit(endpoint)
        self.behind = (place.hostname, place.port)
        # Bound and never listening: connecting is refused, and nobody else is given the port.
        self._holder = _bound(0)
        self.port = self._holder.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.manner = "well"
        # Requests that were begun and will not be answered.
        self.hanging = 0
        self.requests = 0
        # Changes of manner, so that somebody can see that there was none meanwhile.
        self.changes = 0
        self._left = None
        self._lock = threading.Lock()
        self._open = set()
        self._server = None
        self._listen()

    def behave(self, manner, requests=None):
        """From now on; with `requests`, for so many, and then it is a black hole."""
        with self._lock:
            self.manner, self._left, self.hanging = manner, requests, 0
            self.changes += 1
        if manner == "refuses":
            self._close()
        elif self._server is None:
            self._listen()

    def close(self):
        self._close()
        self._holder.close()

    def take(self):
        """The manner for one request."""
        with self._lock:
            self.requests += 1
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    return "black_hole"
            return self.manner

    def hang(self):
        with self._lock:
            self.hanging += 1

    def opened(self, connection):
        with self._lock:
            self._open.add(connection)

    def closed(self, connection):
        with self._lock:
            self._open.discard(connection)

    def _listen(self):
        self._server = Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _close(self):
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
        with self._lock:
            going, self._open = self._open, set()
        for connection in going:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy):
        self.proxy = proxy
        super().__init__(("127.0.0.1", proxy.port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = _bound(proxy.port)
        self.server_activate()

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.proxy.opened(self.connection)

    def finish(self):
        self.server.proxy.closed(self.connection)
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def answer(self):
        manner = self.server.proxy.take()
        length = int(self.headers.get("Content-Length", 0))
        if manner == "black_hole":
            # What comes is not even read. The other side has to have enough of it by itself.
            self.server.proxy.hang()
            threading.Event().wait()
        if manner == "resets" and length > 1:
            self.rfile.read(length // 2)
            return self.reset()
        body = self.rfile.read(length)
        if manner in REFUSALS:
            status, code = REFUSALS[manner]
            return self.send(status, {}, f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode())
        if manner == "greets":
            # Whoever is in between has a page for everybody.
            return self.send(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Welcome</title>Please log in.")
        if manner == "forgets" and self.command == "PUT":
            return self.send(200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b"")
        if manner == "corrupts" and self.command == "PUT" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        status, headers, found = self.forward(body)
        # Parts are put together by their tags, so those stay what they are.
        if manner == "wrong_tag" and "partNumber=" not in self.path:
            headers = {name: '"0123456789abcdef0123456789abcdef"' if name == "ETag" else value for name, value in headers.items()}
            found = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>0123456789abcdef0123456789abcdef</ETag>", found)
        halves = manner == "truncates" or (manner == "resets" and self.command == "GET")
        if self.command == "GET":
            # Every other one, so that whoever goes on comes to an end.
            halves = halves and self.server.proxy.requests % 2 == 1 and len(found) > 1
        self.send(status, headers, found, manner if halves else None)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def forward(self, body):
        """`(status, headers, body)` of the server behind."""
        behind = http.client.HTTPConnection(*self.server.proxy.behind, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            behind.request(self.command, self.path, body=body or None, headers=headers)
            answer = behind.getresponse()
            kept = ("etag", "content-type", "content-range", "last-modified", "accept-ranges")
            headers = {name: value for name, value in answer.getheaders() if name.lower() in kept}
            if self.command == "HEAD":
                headers["Content-Length"] = answer.getheader("Content-Length", "0")
            return answer.status, headers, answer.read()
        finally:
            behind.close()

    def send(self, status, headers, body, halves=None):
        head = {"Content-Length": len(body), **headers}
        text = f"HTTP/1.1 {status} told\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head.items()) + "\r\n"
        whole = text.encode() + (b"" if self.command == "HEAD" else body)
        if halves is None:
            self.wfile.write(whole)
            return
        # Of an answer without a body, half of the head.
        self.wfile.write(whole[: len(text) + len(body) // 2] if len(body) > 1 and self.command != "HEAD" else whole[: len(text) // 2])
        self.close_connection = True
        if halves == "resets":
            self.reset()

    def reset(self):
        self.close_connection = True
        self.server.proxy.closed(self.connection)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, *_):
        pass


def _bound(port):
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
