"""Downloads from a server on this machine: resumed, checked, and refused with a clear line."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters import fetch
from converters.errors import ConversionError
from oodjax import zoo

pytestmark = pytest.mark.slow
pytest.importorskip("huggingface_hub")

CONTENT = bytes(range(256)) * 400


class Handler(http.server.BaseHTTPRequestHandler):
    seen: list[str | None] = []

    def do_GET(self) -> None:
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.seen.append(asked)
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    Handler.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_download_resumes_and_keeps_its_checksum(address: str, tmp_path: Path) -> None:
    (tmp_path / ".x.pth.partial").write_bytes(CONTENT[:1000])
    path = fetch.fetch_url(f"{address}/x.pth?download=1", tmp_path)
    assert path == tmp_path / "x.pth" and path.read_bytes() == CONTENT
    assert Handler.seen == ["bytes=1000-"]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "x.pth.sha256").read_text() == f"{digest}  x.pth\n"
    assert fetch.fetch_url(f"{address}/x.pth", tmp_path) == path and len(Handler.seen) == 1


def test_a_download_that_broke_off_after_its_last_byte_is_fetched_anew(address: str, tmp_path: Path) -> None:
    (tmp_path / ".x.pth.partial").write_bytes(CONTENT)
    assert fetch.fetch_url(f"{address}/x.pth", tmp_path).read_bytes() == CONTENT
    assert Handler.seen == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_the_checksum_in_a_name_is_compared(address: str, tmp_path: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()[:8]
    assert fetch.fetch_url(f"{address}/x-{digest}.pth", tmp_path).is_file()
    with pytest.raises(ConversionError, match="does not have the checksum 00000000 of its name"):
        fetch.fetch_url(f"{address}/x-00000000.pth", tmp_path)
    assert not list(tmp_path.glob("*00000000*"))


def test_what_cannot_be_fetched_is_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"/missing.pth: cannot be fetched \(.*; fetch this file elsewhere"):
        fetch.fetch_url(f"{address}/missing.pth", tmp_path)


def test_without_a_network_the_exact_file_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(host: str, port: object) -> None:
        raise OSError(-2, f"no host {host}")

    monkeypatch.setattr(fetch.socket, "getaddrinfo", lost)
    monkeypatch.setattr(fetch, "getproxies", dict)
    file = "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"
    with pytest.raises(ConversionError, match=f"{file}: cannot be fetched .*no host huggingface.co.* --from"):
        fetch.fetch_checkpoint(zoo.get("timm-a1"), tmp_path)
    with pytest.raises(ConversionError, match="https://example.org/a.pth: cannot be fetched"):
        fetch.fetch_url("https://example.org/a.pth", tmp_path)
    assert not list(tmp_path.iterdir())
    kept = tmp_path / "timm/resnet50.a1_in1k/model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert fetch.fetch_checkpoint(zoo.get("timm-a1"), tmp_path) == [kept]
