# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that serves ranges of the files of a folder, counts them, and can misbehave."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Answer:
    """An answer that is about to be sent; a fault changes it.

    Attributes:
        status: The status code.
        headers: The headers.
        body: The bytes that are sent. Fewer than Content-Length says end the connection early.
        delay: Seconds before the answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0


@dataclass
class RangeServer:
    """A running server.

    Attributes:
        url: The URL of the folder.
        folder: The folder.
        requests: The (path, first byte, last byte) of each request for a range, and (path, -1, -1)
            of others.
        headers: The headers of the last request.
        query: The query of the URL of the last request.
        fault: Called with the path, the number of requests for the same range before, and the
            answer, which it may change.
        latency: Seconds before each answer.
        most_at_once: The largest number of requests that were being answered together.
    """

    url: str
    folder: Path
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    fault: Callable[[str, int, Answer], None] | None = None
    latency: float = 0.0
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_bytes(self) -> int:
        """The bytes of all ranges that were requested."""
        return sum(last - first + 1 for _, first, last in self.requests if first >= 0)

    def forget(self) -> None:
        self.requests.clear()
        self.most_at_once = 0

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        self.headers = headers
        file = self.folder / path
        if not file.is_file():
            with self._lock:
                self.requests.append((path, -1, -1))
            return Answer(404, {"Content-Length": "0"}, b"")
        status = file.stat()
        tag = f'"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"'
        wanted = headers.get("range", "").removeprefix("bytes=")
        first, last = map(int, wanted.split("-")) if wanted else (-1, -1)
        with self._lock:
            number = self.requests.count((path, first, last))
            self.requests.append((path, first, last))
        if headers.get("if-match", tag) != tag:
            answer = Answer(412, {"ETag": tag}, b"")
        elif not wanted:
            answer = Answer(200, {"ETag": tag}, file.read_bytes())
        elif first >= status.st_size:
            answer = Answer(416, {"Content-Range": f"bytes */{status.st_size}"}, b"")
        else:
            with file.open("rb") as opened:
                opened.seek(first)
                body = opened.read(last + 1 - first)
            shown = f"bytes {first}-{first + len(body) - 1}/{status.st_size}"
            answer = Answer(206, {"ETag": tag, "Content-Range": shown}, body)
        answer.headers["Content-Length"] = str(len(answer.body))
        if self.fault is not None:
            self.fault(path, number, answer)
        return answer

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Is silent: clients close connections early."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    """Serves a folder until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with server.counted():
                target = urlsplit(self.path)
                path, server.query = target.path.lstrip("/"), target.query
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = server.answer(path, headers)
                time.sleep(server.latency + answer.delay)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
                if len(answer.body) < int(answer.headers.get("Content-Length", 0)):
                    self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    listener = _Server(("127.0.0.1", 0), Handler)
    server = RangeServer(f"http://127.0.0.1:{listener.server_port}", folder)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
