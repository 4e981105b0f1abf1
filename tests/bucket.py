"""A bucket of Google Cloud Storage on this machine; its requests can be made to fail.

It is the emulator of the package ``gcp-storage-emulator`` with what that one leaves
out: conditional requests, generations in headers, several requests at a time.
"""

import contextlib
import functools
import http
import io
import logging
import os
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from http import server
from urllib.parse import parse_qs, unquote, urlparse

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator import storage as stored

NAME = "bucket"

# Asked before a request, by method and path: a status to answer instead, or None.
Fault = Callable[[str, str], int | None]


# Read when the client is imported: not to ask another service of what kind buckets are.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


class Bucket:
    """The server, while it runs.

    Attributes:
        fault: asked before each request; may also wait.
        requests: method and path of each.
    """

    def __init__(self, port: int, storage: stored.Storage) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.storage = storage
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[str, str]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to find it."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }

    def names(self, prefix: str = "") -> list[str]:
        """Of the objects."""
        found = self.storage.objects.get(NAME, {})
        return sorted(name for name in found if name.startswith(prefix))


class _Handler(emulator.RequestHandler):
    protocol_version = "HTTP/1.1"
    lock = threading.RLock()

    def __init__(self, bucket: Bucket, *args) -> None:
        self.bucket = bucket
        super().__init__(bucket.storage, *args)

    def answer(self, method: str) -> None:
        self.bucket.requests.append((method, unquote(self.path)))
        self.body = None
        if "uploadType=multipart" in self.path:  # the name is in the first part
            self.body = self.rfile.read(int(self.headers["Content-Length"]))
            self.rfile, self.close_connection = io.BytesIO(self.body), True
        if status := self.bucket.fault(method, unquote(self.path)):
            return self.refuse(status)
        with self.lock:
            if status := self.condition():
                return self.refuse(status)
            return emulator.Router(self).handle(method)

    def refuse(self, status: int) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.close_connection = True  # a chunked body is not read
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def condition(self) -> int | None:
        """The status of a request whose condition does not hold."""
        query = {k: v[0] for k, v in parse_qs(urlparse(self.path).query).items()}
        generation = self.generation()
        if "ifGenerationMatch" in query:
            return 412 * (query["ifGenerationMatch"] != generation) or None
        if (
            self.command == "DELETE"
            and query.get("generation", generation) != generation
        ):
            return http.HTTPStatus.NOT_FOUND
        if query.get("ifGenerationNotMatch") == generation != "0":
            return http.HTTPStatus.NOT_MODIFIED
        return None

    def generation(self) -> str:
        url = urlparse(self.path)
        _, _, name = url.path.partition(f"/b/{NAME}/o")
        name = unquote(name.strip("/")) or parse_qs(url.query).get("name", [""])[0]
        if self.body:
            name = re.findall(rb'"name": ?"([^"]*)"', self.body)[0].decode()
        found = self.storage.objects.get(NAME, {}).get(name)
        return found["generation"] if found else "0"

    def end_headers(self) -> None:
        if self.close_connection:
            self.send_header("Connection", "close")
        if (generation := self.generation()) != "0":
            self.send_header("x-goog-generation", generation)
        super().end_headers()

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def do_DELETE(self) -> None:
        self.answer("DELETE")

    def do_PATCH(self) -> None:
        self.answer("PATCH")


class _Server(socketserver.ThreadingMixIn, server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args) -> None:
        """A client that hangs up is no news."""


@functools.cache
def started() -> Bucket:
    """The server in a thread, until this process ends; its clients keep the address."""
    for name in ("api.object", "gcp_storage_emulator", "gcsfs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    storage = stored.Storage(use_memory_fs=True)
    storage._write_config_to_file = lambda: None  # all of it, at every request
    running = _Server(("127.0.0.1", 0), emulator.RequestHandler)
    bucket = Bucket(running.server_address[1], storage)
    running.RequestHandlerClass = functools.partial(_Handler, bucket)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    os.environ.update(bucket.environment)
    return bucket


@contextlib.contextmanager
def empty() -> Iterator[Bucket]:
    """The bucket with nothing in it, whose requests succeed."""
    bucket = started()
    bucket.storage.wipe()
    bucket.storage.buckets[NAME] = {"name": NAME, "location": "US", "id": NAME}
    bucket.requests.clear()
    yield bucket
    bucket.fault = lambda method, path: None
