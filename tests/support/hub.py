"""A model hub on a loopback port, with as much of the hub's interface as a download needs."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    repositories: Mapping[str, Mapping[str, bytes]]
    fetched: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        for name, files in self.repositories.items():
            if path.startswith(
                (f"api/models/{name}/tree", f"api/models/{name}/revision", f"api/models/{name}")
            ):
                self._send(self._about(name, files, is_tree="/tree/" in path), {})
                return
            if path.startswith(f"{name}/resolve/"):
                content = files[path.split("/", 4)[4]]
                if self.command == "GET":
                    self.fetched.append(path.split("/", 4)[4])
                self._send(
                    content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                )
                return
        self._send(b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}, status=404)

    def _about(self, name: str, files: Mapping[str, bytes], *, is_tree: bool) -> bytes:
        if is_tree:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            return json.dumps(entries).encode()
        siblings = [{"rfilename": path} for path in files]
        return json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode()

    def _send(self, content: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def loopback_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories (name -> path -> content); yields its address and the paths fetched so far."""
    fetched: list[str] = []
    handler = type("Handler", (_Handler,), {"repositories": repositories, "fetched": fetched})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
