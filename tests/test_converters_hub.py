"""A repository of the hub, from a server on this machine: its weights and, where it has one, its config.json."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("huggingface_hub")

FILES = {
    "/timm/resnetaa50.a1h_in1k/resolve/main/model.safetensors": b"",
    "/timm/resnetaa50.a1h_in1k/resolve/main/config.json": json.dumps({"architecture": "resnetaa50"}).encode(),
    "/me/bare/resolve/main/model.safetensors": b"",
    "/me/broken/resolve/main/model.safetensors": b"",
}


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(FILES.get(self.path, b""))

    def answer(self, body: bytes) -> None:
        if self.path not in FILES:
            broken = self.path.startswith("/me/broken")
            self.send_response(403 if broken else 404)
            if not broken:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for name, value in (
            ("ETag", '"0123456789abcdef"'),
            ("X-Repo-Commit", "0" * 40),
            ("Content-Length", str(len(FILES[self.path]))),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("timm/resnetaa50.a1h_in1k", "config.json: says 'resnetaa50', which is not what timm-resnet50 computes"),
        ("me/bare", "model.safetensors: is empty"),
        ("me/broken", "its config.json may say another network, and http://127.0.0.1"),
    ],
)
def test_a_config_is_read_where_there_is_one(endpoint: str, tmp_path: Path, repository: str, message: str) -> None:
    """A repository without one goes on to the weights, which are empty here; one that cannot tell is refused."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "cache")}
    to, downloads = tmp_path / "to", tmp_path / "downloads"
    options = f"--layout timm-resnet50 --to {to} --downloads {downloads}".split()
    command = [sys.executable, "-m", "converters", repository, *options]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 2 and message in found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("converters: ") and not to.exists()
