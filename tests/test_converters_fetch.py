"""Downloads from a server on this machine: resumed, checked, and refused with a clear line."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
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
        if self.path.startswith("/never"):
            self.send_error(416)
            return
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


def part_of(url: str, folder: Path, content: bytes) -> Path:
    """What a transfer that broke off leaves; returns the path of the whole file."""
    path = fetch.path_of(url, folder)
    path.parent.mkdir()
    path.with_name(f".{path.name}.partial").write_bytes(content)
    return path


def test_a_download_resumes_and_keeps_its_checksum(address: str, tmp_path: Path) -> None:
    url = f"{address}/x.pth?download=1"
    path = part_of(url, tmp_path, CONTENT[:1000])
    assert fetch.fetch_url(url, tmp_path) == path and path.read_bytes() == CONTENT
    assert Handler.seen == ["bytes=1000-"]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (path.parent / "x.pth.sha256").read_text(encoding="utf-8") == f"{digest}  x.pth\n"
    assert fetch.fetch_url(url, tmp_path) == path and len(Handler.seen) == 1


def test_two_addresses_never_share_a_file(address: str, tmp_path: Path) -> None:
    """Many checkpoints are called model.pth; a file kept for one of them must not stand in for another."""
    urls = [f"{address}/{text}" for text in ("a/x.pth", "b/x.pth", "get?id=1", "get?id=2")]
    assert len({fetch.fetch_url(url, tmp_path) for url in urls}) == 4 == len(Handler.seen)
    assert [fetch.path_of(url, tmp_path).name for url in urls] == ["x.pth", "x.pth", "get", "get"]


@pytest.mark.parametrize("end", ["", "/", "/..", "/a/", "/.", "?x.pth"])
def test_an_address_without_a_file_is_refused(address: str, tmp_path: Path, end: str) -> None:
    with pytest.raises(ConversionError, match="names no file"):
        fetch.fetch_url(address + end, tmp_path / "downloads")
    assert not list(tmp_path.iterdir()) and not Handler.seen


def test_a_file_that_changed_since_its_download_is_refused(address: str, tmp_path: Path) -> None:
    path = fetch.fetch_url(f"{address}/x.pth", tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ConversionError, match=r"is not what was downloaded: .*x.pth.sha256.* remove it"):
        fetch.fetch_url(f"{address}/x.pth", tmp_path)
    assert path.read_bytes() == CONTENT[:-1]


def test_a_server_that_has_nothing_to_send_is_asked_once(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="/never.pth: cannot be fetched"):
        fetch.fetch_url(f"{address}/never.pth", tmp_path)
    part_of(f"{address}/never-again.pth", tmp_path, CONTENT)
    with pytest.raises(ConversionError, match="/never-again.pth: cannot be fetched"):
        fetch.fetch_url(f"{address}/never-again.pth", tmp_path)


def test_a_download_that_broke_off_after_its_last_byte_is_fetched_anew(address: str, tmp_path: Path) -> None:
    part_of(f"{address}/x.pth", tmp_path, CONTENT)
    assert fetch.fetch_url(f"{address}/x.pth", tmp_path).read_bytes() == CONTENT
    assert Handler.seen == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_the_checksum_in_a_name_is_compared(address: str, tmp_path: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()[:8]
    assert fetch.fetch_url(f"{address}/x-{digest}.pth", tmp_path).is_file()
    with pytest.raises(ConversionError, match="does not have the checksum 00000000 of its name"):
        fetch.fetch_url(f"{address}/x-00000000.pth", tmp_path)
    assert not list(tmp_path.rglob("*00000000.pth*"))


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


def test_what_is_in_the_folder_under_one_of_its_names_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "vit-deit.pth").write_bytes(b"weights")
    assert fetch.fetch_checkpoint(zoo.get("vit-deit"), tmp_path) == [tmp_path / "vit-deit.pth"]
    for path in (tmp_path / "dino_resnet50_pretrain.pth", tmp_path / "dino/dino_resnet50_linearweights.pth"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights")
    assert [path.name for path in fetch.fetch_checkpoint(zoo.get("dino"), tmp_path)] == [
        "dino_resnet50_pretrain.pth",
        "dino_resnet50_linearweights.pth",
    ]


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for the files of one repository."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        content = INDEX if self.path.endswith(".json") else self.path.encode()
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD

    def log_message(self, *arguments: object) -> None: ...


CHILD = """
import sys
from pathlib import Path
from converters import fetch, files
path = fetch.fetch_hub("owner/name", "sub/model.safetensors.index.json", Path(sys.argv[1]))
print(*[part.relative_to(sys.argv[1]) for part in files.parts(path)], sep="\\n")
"""


def test_an_index_of_the_hub_brings_its_shards(tmp_path: Path) -> None:
    """In a process of its own: the hub's library reads its address when it is imported."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1"}
        found = subprocess.run([sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, env=environment)
        server.shutdown()
        thread.join()
    assert found.returncode == 0, found.stderr[-2000:]
    folder = Path("owner/name/sub")
    assert found.stdout.split() == [
        str(folder / name) for name in ("model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors")
    ]
    assert (tmp_path / folder / "model-2.safetensors").read_text(encoding="utf-8").endswith("/sub/model-2.safetensors")
