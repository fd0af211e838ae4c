"""Downloads through huggingface_hub: progress, resumed transfers, checksums kept beside the file."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from converters import files, shards
from converters.envelopes import parse_second
from converters.errors import ConversionError, problem
from converters.files import sha256
from oodjax import zoo

HUB_FILE = "model.safetensors"


def fetch_checkpoint(checkpoint: zoo.Checkpoint, folder: Path) -> list[Path]:
    """The files of a checkpoint of the zoo, downloaded into `folder` unless they are there.

    Raises:
      ConversionError: published where no program can fetch it, or no network; names the file to fetch by hand.
    """
    file = f"{checkpoint.id}.{checkpoint.file_format}"
    where = f"fetch {checkpoint.url} by hand, keep it as {file} and name it with --from"
    if checkpoint.source == "google-drive" or checkpoint.member:
        raise problem(checkpoint.id, f"is published where only a browser can fetch it: {where}")
    if checkpoint.source == "hf-hub":
        repo, _, file = checkpoint.locator.partition(":")
        return [fetch_hub(repo, file, folder)]
    if "dropbox.com/sh/" in checkpoint.url:
        raise problem(checkpoint.id, f"is published in a shared folder that only a browser can open: {where}")
    wanted = [(checkpoint.url.replace("dl=0", "dl=1"), files.candidates(checkpoint))]
    if checkpoint.second_file:
        wanted.append((parse_second(checkpoint.second_file)[0], files.second_candidates(checkpoint)))
    own = folder / checkpoint.id
    return [files.first(folder, names) or fetch_url(url, folder, own / _file_name(url)) for url, names in wanted]


def fetch_hub(repo: str, file: str, folder: Path) -> Path:
    """`file` of a repository of the Hugging Face hub, in `folder`/`repo`; one that is there is not fetched again.

    With an index come the shards that it names.
    """
    path = _fetch_hub_file(repo, file, folder)
    if shards.is_index(path):
        for shard in shards.beside(path):
            _fetch_hub_file(repo, str(PurePosixPath(file).with_name(shard.name)), folder)
    return path


def _fetch_hub_file(repo: str, file: str, folder: Path) -> Path:
    path = folder / repo / file
    if _is_kept(path):
        return path
    hub = _hub()
    url = f"{hub.constants.ENDPOINT}/{repo}/resolve/main/{file}"
    _find_host(url)
    try:
        path = Path(hub.hf_hub_download(repo, file, local_dir=folder / repo))
    except Exception as error:  # the hub's and its HTTP library's errors share no base class
        raise _unreachable(url, error) from error
    _keep_checksum(path)
    return path


def path_of(url: str, folder: Path) -> Path:
    """Where the file at `url` is kept: under its own name, in a folder that no other address shares.

    Raises:
      ConversionError: the address names no file.
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return folder / f"{urlparse(url).hostname}-{digest}" / _file_name(url)


def _file_name(url: str) -> str:
    name = urlparse(url).path.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise problem(url, "names no file: give the address of the file itself")
    return name


def fetch_url(url: str, folder: Path, path: Path | None = None) -> Path:
    """The file at `url`; a transfer that broke off goes on where it stopped, and one that is kept is not fetched again.

    Args:
      url: address of the file.
      folder: where downloads are kept.
      path: of the file; by default `path_of`.

    Raises:
      ConversionError: no network, the content does not fit the checksum in the file's name, or the file that is kept
        is not what was downloaded.
    """
    path = path_of(url, folder) if path is None else path
    if _is_kept(path):
        return path
    hub = _hub()
    _find_host(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _transfer(hub, url, partial)
    check_name(partial, path.name)
    os.replace(partial, path)
    _keep_checksum(path)
    return path


def _transfer(hub: Any, url: str, partial: Path) -> None:
    try:
        with partial.open("ab") as file:
            start = file.tell()
            hub.file_download.http_get(url, file, resume_size=start)
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status != 416 or not start:
            raise _unreachable(url, error) from error
        partial.unlink()  # nothing is left to resume: it is whole, or of another file
        _transfer(hub, url, partial)


def _is_kept(path: Path) -> bool:
    """Whether the file is there, as it was downloaded."""
    if not path.is_file():
        return False
    note = path.with_name(f"{path.name}.sha256")
    if note.is_file() and note.read_text(encoding="utf-8").split()[:1] != [sha256(path)]:
        other = f"{note.name} has another checksum; remove it to fetch it again"
        raise problem(str(path), f"is not what was downloaded: {other}")
    return True


def check_name(path: Path, name: str) -> None:
    """Compares the content with the checksum that torch's file names end in, such as "resnet50-0676ba61.pth".

    Raises:
      ConversionError: it is neither the beginning of the sha256 nor of the sha1; the file is deleted.
    """
    found = re.search(r"-([0-9a-f]{8,64})\.", name)
    if not found:
        return
    with path.open("rb") as file:
        digests = sha256(path), hashlib.file_digest(file, "sha1").hexdigest()
    if not any(digest.startswith(found[1]) for digest in digests):
        path.unlink()
        raise problem(name, f"the download does not have the checksum {found[1]} of its name; fetch it again")


def _keep_checksum(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").write_text(f"{sha256(path)}  {path.name}\n", encoding="utf-8")


def _find_host(url: str) -> None:
    """Fails at once where there is no network; the library would try again and again. A proxy knows hosts itself."""
    if getproxies():
        return
    try:
        socket.getaddrinfo(urlparse(url).hostname, None)
    except OSError as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> ConversionError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return problem(url, f"cannot be fetched ({reason[:120]}); fetch this file elsewhere and name it with --from")


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.file_download
    except ImportError as error:
        raise problem("downloading", "needs huggingface_hub: pip install 'oodjax[convert]'") from error
    return huggingface_hub
