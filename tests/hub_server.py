"""A Hub for the tests: enough of the Hugging Face protocol for its real clients, on the loopback.

    with HubServer() as hub:
        hub.add_repo("org/name", {"config.json": "{}"})
        subprocess.run([...], env=hub.environment(home))

Everything is in memory: blobs by sha256, commits as {path: blob}, branches and tags as names of
commits. Uploads go the LFS way (`HF_HUB_DISABLE_XET=1`), downloads by `resolve` with Range.
huggingface_hub reads its settings when it is imported, so clients run in processes of their own.
To have one at hand: `python tests/hub_server.py --port 8080`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hub_store import STRANGER, WRITER, Answer, Refusal, Store


@dataclasses.dataclass
class Request:
    """One entry of the log: what was asked, with which token, and what was sent back."""

    method: str
    path: str
    token: str | None
    range: str | None
    status: int = 0
    sent: int = 0


@dataclasses.dataclass
class Fault:
    """What goes wrong with requests whose path contains `path`.

    Kinds: "status" answers `status` with `headers`; "cut" sends `fraction` of the body and hangs
    up; "wrong" sends other bytes of the right length; "ignore_range" sends the whole file for a
    Range; "drip" sends a byte each 50 ms; "silent" sends no byte of the body for 5 s; "hangup"
    does as it is asked and hangs up without an answer.
    """

    kind: str
    path: str
    method: str = "GET"
    times: int = 1
    status: int = 503
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fraction: float = 0.5


class HubServer:
    """The server; `token` may write and read everything, `stranger` is a user without rights."""

    token = WRITER
    stranger = STRANGER

    def __init__(self, *, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"
        self.store = Store(self.endpoint)

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home: Path | str, *, token: str | None = WRITER) -> dict[str, str]:
        """The environment of a client whose caches are in `home`; `token` None is anonymous."""
        dropped = {"HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"}
        kept = {key: value for key, value in os.environ.items() if key not in dropped}
        return {
            **kept,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1" if token is None else "0",
            "NO_PROXY": "127.0.0.1",
            **({} if token is None else {"HF_TOKEN": token}),
        }

    def run(
        self,
        code: str,
        folder: Path,
        *,
        token: str | None = WRITER,
        home: str = "home",
        environment: Mapping[str, str] | None = None,
    ) -> Any:
        """Run Python in `folder` as a client; returns the last line that it prints, as JSON.

        `json` is imported. Its caches are in `folder`/`home`. No token may come out.
        """
        done = subprocess.run(
            [sys.executable, "-c", "import json\n" + textwrap.dedent(code)],
            env=self.environment(folder / home, token=token) | dict(environment or {}),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        for secret in (WRITER, STRANGER):
            assert secret not in done.stdout + done.stderr, "a token was printed"
        return json.loads(done.stdout.splitlines()[-1])

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str] | Path,
        *,
        private: bool = False,
        gated: bool = False,
        tag: str | None = None,
    ) -> str:
        """Add a repository, or one more commit on its main branch; returns the commit."""
        if isinstance(files, Path):
            files = {f.name: f.read_bytes() for f in sorted(files.iterdir()) if f.is_file()}
        as_bytes = {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
        return self.store.add(repo_id, as_bytes, private=private, gated=gated, tag=tag)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds."""
        commit = self.store.repos[repo_id].at(revision)
        assert commit is not None
        return {path: blob.data for path, blob in commit.files.items()}

    def add_file(self, name: str, data: bytes) -> str:
        """Serve `data` as a plain file outside all repositories; returns its address."""
        self.store.add_plain(name, data)
        return f"{self.endpoint}/plain/{name}"

    def fail(self, kind: str, path: str, **details: Any) -> None:
        """Let requests whose path contains `path` fail; see `Fault`."""
        self.faults.append(Fault(kind, path, **details))

    def paths(self, method: str = "GET") -> list[str]:
        """Paths of the requests of one method so far."""
        return [request.path for request in self.requests if request.method == method]

    def next_fault(self, request: Request) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == request.method and fault.path in request.path:
                    fault.times -= 1
                    return fault
        return None


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        server_state = hub

    return Handler


class _Handler(BaseHTTPRequestHandler):
    """One connection. Routes are tried in order; a Refusal becomes the Hub's error headers."""

    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal: `hub.requests` is the log."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        hub = self.server_state
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.request_log = Request(self.command, self.path, bearer, self.headers.get("Range"))
        hub.requests.append(self.request_log)
        with contextlib.suppress(ConnectionError):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(self._chunks())
            fault = hub.next_fault(self.request_log)
            if fault is not None and fault.kind == "status":
                self._answer(fault.status, b'{"error": "out of order"}', dict(fault.headers))
                return
            try:
                with hub.lock:
                    answer = hub.store.answer(self.command, self.path, bearer, body)
                if fault is not None and fault.kind == "hangup":
                    self.close_connection = True
                elif isinstance(answer, Answer):
                    self._send_file(answer, fault)
                else:
                    self._answer(200, json.dumps(answer).encode(), {})
            except Refusal as refusal:
                self._answer(refusal.status, json.dumps(refusal.body).encode(), refusal.headers)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.request_log.status = status
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, answer: Answer, fault: Fault | None) -> None:
        data, total = answer.blob.data, len(answer.blob.data)
        kind = fault.kind if fault is not None else ""
        headers = {"ETag": f'"{answer.blob.etag}"', "Accept-Ranges": "bytes", **answer.headers}
        asked = "" if kind == "ignore_range" else self.headers.get("Range", "")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            if int(first) >= total:
                raise Refusal(416, None, "range not satisfiable")
            data = data[int(first) : int(last) + 1 if last else total]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{total}"
        if kind == "wrong":
            data = bytes(byte ^ 0xFF for byte in data)
        self.request_log.status = 206 if asked else 200
        self.send_response(self.request_log.status)
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and kind in ("cut", "silent", "drip"):
            self._misbehave(data, fault)
            return
        self.wfile.write(data)
        self.request_log.sent = len(data)

    def _misbehave(self, data: bytes, fault: Fault) -> None:
        self.close_connection = True
        if fault.kind == "cut":
            data = data[: int(len(data) * fault.fraction)]
            self.wfile.write(data)
            self.request_log.sent = len(data)
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "silent":
            time.sleep(5)
        else:
            for byte in data[:400]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Hub for tests and demonstrations.")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    with HubServer(port=parser.parse_args().port) as hub:
        print(hub.endpoint, flush=True)
        exports = f"HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1"
        print(f"export {exports}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
