"""A local HTTP server that serves one file well or badly: the first part of the path says how."""

import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class BadServer(ThreadingHTTPServer):
    """Serves ``content`` at ``url(fault)``; use it in a ``with`` statement.

    ``requests`` lists (fault, first byte asked for), ``sent`` counts the body's bytes by fault.
    """

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests = []
        self.sent = Counter()
        self.stopped = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, fault):
        return f"http://127.0.0.1:{self.server_port}/{fault}/file"

    def handle_error(self, request, client_address):
        """Clients that hang up are what is tested."""

    def __exit__(self, *error):
        self.stopped.set()
        self.shutdown()
        super().__exit__(*error)


def refused_url():
    """Of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.fault = self.path.split("/")[1]
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.server.requests.append((self.fault, start))
        getattr(self, self.fault)(start)

    def head(self, start, length, status=None, first=None, **headers):
        size = len(self.server.content)
        self.send_response(status or (206 if start else 200))
        if length is not None:
            self.send_header("Content-Length", str(length))
        if start:
            first = start if first is None else first
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def body(self, content):
        for first in range(0, len(content), 4096):
            # Counted first: who has the last byte may ask at once how many were sent.
            self.server.sent[self.fault] += len(content[first : first + 4096])
            self.wfile.write(content[first : first + 4096])

    def good(self, start):
        content = self.server.content[start:]
        self.head(start, len(content))
        self.body(content)

    def paced(self, start):
        """Good, in about a second."""
        content = self.server.content[start:]
        self.head(start, len(content))
        for first in range(0, len(content), len(content) // 10 + 1):
            self.body(content[first : first + len(content) // 10 + 1])
            time.sleep(0.1)

    def missing(self, start):
        self.send_error(404)

    def broken(self, start):
        self.send_error(503, "Service\tUnavailable")

    def silent(self, start):
        self.server.stopped.wait(60)

    def stalls(self, start):
        content = self.server.content[start:]
        self.head(start, len(content))
        self.body(content[: len(content) // 4])
        self.wfile.flush()
        self.server.stopped.wait(60)

    def crawls(self, start):
        """80 kB/s, as the official host of CIFAR in June 2026."""
        content = self.server.content[start:]
        self.head(start, len(content))
        for first in range(0, len(content), 4000):
            self.body(content[first : first + 4000])
            if self.server.stopped.wait(0.05):
                return

    def truncates(self, start):
        content = self.server.content[start:]
        self.head(start, len(content))
        self.body(content[: len(content) // 2])

    def truncates_unannounced(self, start):
        content = self.server.content[start:]
        self.head(start, None)
        self.body(content[: len(content) // 2])

    def announces_more(self, start):
        content = self.server.content[start:]
        self.head(start, len(content) + 1000)
        self.body(content)

    def announces_less(self, start):
        content = self.server.content[start:]
        self.head(start, len(content) - 1000)
        self.body(content[:-1000])

    def endless(self, start):
        self.head(start, None)
        self.body(self.server.content[start:])
        while not self.server.stopped.wait(0.001):
            self.body(bytes(4096))

    def wrong_bytes(self, start):
        content = self.server.content[start:]
        self.head(start, len(content))
        self.body(bytes(byte ^ 1 for byte in content))

    def web_page(self, start):
        self.head(0, 20)
        self.body(b"<html>Sorry</html>..")

    def garbage(self, start):
        self.wfile.write(b"\x1b[2J no HTTP at all\r\n\r\n")

    def ignores_range(self, start):
        self.good(0)

    def wrong_range(self, start):
        content = self.server.content[start and start + 7 :]
        self.head(start, len(content), first=start + 7)
        self.body(content)

    def lies_about_range(self, start):
        content = self.server.content[start and start - 7 :][: len(self.server.content) - start]
        self.head(start, len(content))
        self.body(content)

    def always_a_part(self, start):
        self.wrong_range(start or 1)

    def no_such_range(self, start):
        if start:
            self.send_error(416)
        else:
            self.good(0)

    def redirects(self, start):
        self.head(0, 0, status=302, Location="/good/file")

    def redirects_for_ever(self, start):
        self.head(0, 0, status=302, Location=self.path)

    def redirects_to_a_file(self, start):
        self.head(0, 0, status=302, Location="file:///etc/passwd")
