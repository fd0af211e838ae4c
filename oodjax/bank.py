"""The feature bank: what grows with the number of training samples; in memory, or in a folder as it comes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from oodjax.accumulate import STATISTICS, Array
from oodjax.files import sync, write_text, write_whole
from oodjax.outputs import Outputs
from oodjax.percentiles import SLOTS, leading_histogram

# File -> type of its numbers. `kept` says of each row seen whether its features were kept.
FILES = {
    "features.f32": "<f4",
    "energies.f32": "<f4",
    "labels.i32": "<i4",
    "keys.u64": "<u8",
    "layer_means.f32": "<f4",
    "kept.u8": "u1",
}
EVERY_ROW, WIDE = ("layer_means.f32", "kept.u8"), ("features", "layer_means")
LAYOUT, RECORD, HISTOGRAM = "layout.json", "bank.json", "histogram.npy"


@dataclass(frozen=True)
class Bank:
    """The rows that detectors keep: arrays in memory, or read-only memory maps of a folder; m rows of n seen.

    Attributes:
      features: (m, D) float32; None where no detector reads them.
      energies: (m,) float32 logsumexp of the logits; None with the features.
      labels: (m,) int32 class of each; None with the features.
      keys: (m,) uint64 pseudo-random priority of each; None with the features.
      layer_means: (n, L) float32 of every row seen, or None.
      histogram: (2**20,) counts of the activations by the leading 20 bits, where the bank is partial, else None.
      bank_fraction, seed: which share was kept.
    """

    features: Array
    energies: Array
    labels: Array
    keys: Array
    layer_means: Array
    histogram: Array
    bank_fraction: float = 1.0
    seed: int = 0

    @classmethod
    def open(cls, folder: Path) -> Bank:
        """The bank that was finished in `folder`, as memory maps.

        Raises:
          ValueError: the folder holds none, or files of another length than its record says.
        """
        record = _read_record(folder)
        arrays: dict[str, Any] = dict.fromkeys(("features", "energies", "labels", "keys", "layer_means"))
        for name, width in record["widths"].items():
            arrays[_field(name)] = _map(folder / name, FILES[name], width)
        arrays.pop("kept")
        histogram = np.load(folder / HISTOGRAM) if (folder / HISTOGRAM).exists() else None
        return cls(**arrays, histogram=histogram, bank_fraction=record["fraction"], seed=record["seed"])


@dataclass(frozen=True)
class _Rows:
    """What one batch brings: its kept rows, which those are, and the layer means and activations of all."""

    kept: np.ndarray
    features: np.ndarray
    energies: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    layer_means: np.ndarray | None
    histogram: np.ndarray | None


class _Reader:
    """Turns batches into rows of the bank, each read when the next comes: the device works on that one meanwhile."""

    def __init__(self, fraction: float, seed: int, needs: frozenset[str] | None):
        if not 0 < fraction <= 1:
            raise ValueError(f"bank_fraction must lie in (0, 1], got {fraction}")
        self.fraction, self.seed = fraction, seed
        self.needs = frozenset(STATISTICS) if needs is None else needs
        self._last: tuple[Outputs, int | None, Array | None] | None = None

    def put(self, outputs: Outputs, count: int | None, index: Array | None) -> _Rows | None:
        """The rows of the batch before this one, if there was one."""
        rows = self.flush()
        means = outputs.layer_means if "layer_means" in self.needs else None
        self._last = Outputs(outputs.logits, outputs.features, outputs.labels, layer_means=means), count, index
        return rows

    def flush(self) -> _Rows | None:
        if self._last is None:
            return None
        (outputs, count, index), self._last = self._last, None
        means = None if outputs.layer_means is None else np.asarray(outputs.layer_means, np.float32)[:count]
        if "features" not in self.needs:
            seen = len(outputs) if count is None else count
            none = np.zeros(0, np.float32)
            return _Rows(
                np.zeros(seen, bool), none[:, None], none, none.astype(np.int32), none.astype(np.uint64), means, None
            )
        features = np.asarray(outputs.features, np.float32)[:count]
        energies = energies_of(np.asarray(outputs.logits, np.float64)[:count])
        labels = np.asarray(outputs.labels, np.int32)[:count]
        keys = content_keys(features, self.seed) if index is None else index_keys(np.asarray(index)[:count], self.seed)
        if self.fraction == 1.0:
            return _Rows(np.ones(len(keys), bool), features, energies, labels, keys, means, None)
        keep = kept_share(keys, self.fraction)
        kept = features[keep], energies[keep], labels[keep], keys[keep]
        return _Rows(keep, *kept, means, leading_histogram(features))


class BankBuilder:
    """Collects the bank in memory."""

    def __init__(self, fraction: float = 1.0, seed: int = 0, needs: frozenset[str] | None = None):
        self._reader = _Reader(fraction, seed, needs)
        self._parts: list[_Rows] = []
        self._histogram = None if fraction == 1.0 else np.zeros(SLOTS, np.int64)

    def add(self, outputs: Outputs, count: int | None = None, index: Array | None = None) -> None:
        """Adds the first `count` rows of `outputs` (all when None).

        `index`, where it is known, is each row's place in the whole training split; see `index_keys`.
        """
        self._take(self._reader.put(outputs, count, index))

    def _take(self, rows: _Rows | None) -> None:
        if rows is None:
            return
        if self._histogram is not None and rows.histogram is not None:
            self._histogram += rows.histogram
        self._parts.append(rows)

    def build(self) -> Bank:
        self._take(self._reader.flush())
        kept = "features" in self._reader.needs

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(rows, name) for rows in self._parts])

        return Bank(
            features=joined("features") if kept else None,
            energies=joined("energies") if kept else None,
            labels=joined("labels") if kept else None,
            keys=joined("keys") if kept else None,
            layer_means=joined("layer_means") if self._parts[0].layer_means is not None else None,
            histogram=self._histogram if kept else None,
            bank_fraction=self._reader.fraction,
            seed=self._reader.seed,
        )


class BankWriter:
    """Writes the bank to a folder as it comes; host memory holds two batches.

    Attributes:
      rows: rows seen whose part of the bank is in the files.
    """

    def __init__(
        self, folder: Path, dim: int, fraction: float = 1.0, seed: int = 0, *, layers: int = 0,
        needs: frozenset[str] | None = None, rows: int = 0,
    ):  # fmt: skip
        """
        Args:
          folder: made when missing; the writer's own files in it are cut to `rows`.
          dim: features a row.
          fraction: share of the features to keep, in (0, 1].
          seed: which share.
          layers: layer means a row, 0 where there are none.
          needs: the statistics to keep (`oodjax.accumulate.STATISTICS`); features and layer means may be left out.
          rows: where to carry on, as `commit` counted; 0 starts anew.

        Raises:
          ValueError: what is there has another layout, or fewer rows.
        """
        self._reader = _Reader(fraction, seed, needs)
        self.folder = folder
        wanted = {"features.f32": dim, "energies.f32": 1, "labels.i32": 1, "keys.u64": 1}
        if "features" not in self._reader.needs:
            wanted = {}
        if layers and "layer_means" in self._reader.needs:
            wanted["layer_means.f32"] = layers
        self._widths = {**wanted, "kept.u8": 1}
        self._histogram = np.zeros(SLOTS, np.int64) if fraction < 1.0 and "features.f32" in wanted else None
        folder.mkdir(parents=True, exist_ok=True)
        self._take_layout({"widths": self._widths, "fraction": fraction, "seed": seed}, anew=rows == 0)
        for name in self._widths:
            (folder / name).touch()
        self.truncate(rows)

    def _take_layout(self, layout: dict[str, Any], anew: bool) -> None:
        path = self.folder / LAYOUT
        if anew:
            for name in (RECORD, HISTOGRAM, *FILES):
                (self.folder / name).unlink(missing_ok=True)
            for old in self.folder.glob("histogram-*.npy"):
                old.unlink()
            write_text(path, json.dumps(layout))
        elif not path.exists() or json.loads(path.read_text(encoding="utf-8")) != layout:
            found = path.read_text(encoding="utf-8") if path.exists() else "nothing"
            raise ValueError(f"{self.folder} cannot be carried on: it holds {found}, wanted is {json.dumps(layout)}")

    def append(self, outputs: Outputs, count: int | None = None, index: Array | None = None) -> None:
        """Adds the first `count` rows of `outputs` (all when None); they reach the files with the next call.

        Args:
          outputs: a batch, on the device or the host.
          count: how many of its rows are real.
          index: (n,) each row's place in the whole training split, which then decides the share; see `index_keys`.
        """
        self._write(self._reader.put(outputs, count, index))

    def _write(self, rows: _Rows | None) -> None:
        if rows is None:
            return
        arrays = {f.name: getattr(rows, f.name) for f in fields(rows)}
        for name, width in self._widths.items():
            array = arrays[_field(name)]
            if array is None or array.size != len(array) * width:
                got = "none" if array is None else array.shape[1]
                raise ValueError(f"the bank's {name} takes {width} numbers a row, the batch has {got}")
        for name in self._widths:
            with open(self.folder / name, "ab") as file:
                file.write(np.ascontiguousarray(arrays[_field(name)], FILES[name]).data)
        if self._histogram is not None and rows.histogram is not None:
            self._histogram += rows.histogram
        self.rows += len(rows.kept)

    def commit(self) -> int:
        """Brings everything appended so far to the disk; returns the number of rows, which `truncate` goes back to."""
        self._write(self._reader.flush())
        for name in self._widths:
            sync(self.folder / name)
        if self._histogram is not None:
            histogram = self._histogram
            write_whole(self._histogram_at(self.rows), lambda file: np.save(file, histogram))
        return self.rows

    def truncate(self, rows: int) -> None:
        """Cuts off what came after the first `rows` rows seen; `rows` is 0 or what a `commit` returned.

        Raises:
          ValueError: the files hold fewer rows.
        """
        self._reader.flush()
        kept = int(np.fromfile(self.folder / "kept.u8", np.uint8, count=rows).sum())
        sizes = {name: self._width(name) * (rows if name in EVERY_ROW else kept) for name in self._widths}
        short = [name for name, size in sizes.items() if (self.folder / name).stat().st_size < size]
        if self._histogram is not None and rows and not self._histogram_at(rows).exists():
            short.append(self._histogram_at(rows).name)
        if short:
            raise ValueError(f"{self.folder} holds less than {rows} rows in {', '.join(short)}: start the pass anew")
        for name, size in sizes.items():
            os.truncate(self.folder / name, size)
        if self._histogram is not None:
            self._histogram = np.load(self._histogram_at(rows)) if rows else np.zeros(SLOTS, np.int64)
        self.rows = rows

    def finish(self) -> Bank:
        """The whole bank; `Bank.open(folder)` returns it from then on."""
        rows = self.commit()
        if self._histogram is not None:
            os.replace(self._histogram_at(rows), self.folder / HISTOGRAM)
        for old in self.folder.glob("histogram-*.npy"):
            old.unlink()
        _write_record(self.folder, self._widths, self._reader.fraction, self._reader.seed)
        return Bank.open(self.folder)

    def _width(self, name: str) -> int:
        return self._widths[name] * np.dtype(FILES[name]).itemsize

    def _histogram_at(self, rows: int) -> Path:
        return self.folder / f"histogram-{rows}.npy"


def join_banks(parts: Sequence[Path], folder: Path) -> Bank:
    """The finished banks of several folders, one behind the other, in a new folder: the bank of the union.

    Raises:
      ValueError: one of them is not finished, or they differ in what they keep.
    """
    records = [_read_record(part) for part in parts]
    layouts = [{**r, "bytes": None} for r in records]
    if any(layout != layouts[0] for layout in layouts):
        raise ValueError(f"banks of different layouts cannot be joined: {[str(p) for p in parts]}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in records[0]["widths"]:
        with open(folder / name, "wb") as whole:
            for part in parts:
                with open(part / name, "rb") as file:
                    shutil.copyfileobj(file, whole, 2**24)
        sync(folder / name)
    if (parts[0] / HISTOGRAM).exists():
        histogram = sum(np.load(part / HISTOGRAM) for part in parts)
        write_whole(folder / HISTOGRAM, lambda file: np.save(file, histogram))
    _write_record(folder, records[0]["widths"], records[0]["fraction"], records[0]["seed"])
    return Bank.open(folder)


def _write_record(folder: Path, widths: dict[str, int], fraction: float, seed: int) -> None:
    """Written last: a folder with a record is whole."""
    sizes = {name: (folder / name).stat().st_size for name in widths}
    record = {"widths": widths, "fraction": fraction, "seed": seed, "bytes": sizes}
    write_text(folder / RECORD, json.dumps(record))


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        for name, size in record["bytes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} has {(folder / name).stat().st_size} bytes, {size} were written")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder} holds no whole feature bank: {error}") from error
    return record


def _field(name: str) -> str:
    return name.partition(".")[0]


def _map(path: Path, dtype: str, width: int) -> np.ndarray:
    """A file's rows as a read-only memory map, which a file without rows cannot be."""
    shape = (path.stat().st_size // (width * np.dtype(dtype).itemsize), *((width,) if path.stem in WIDE else ()))
    return np.memmap(path, dtype, "r", shape=shape) if shape[0] else np.zeros(shape, dtype)


def energies_of(logits: np.ndarray) -> np.ndarray:
    """(n, K) float64 -> (n,) float32 logsumexp."""
    from scipy.special import logsumexp  # here, since it takes longer to import than the package

    return logsumexp(logits, axis=-1).astype(np.float32)


def index_keys(index: np.ndarray, seed: int) -> np.ndarray:
    """(n,) uint64 hash of (seed, place in the training split): no two places share one.

    It draws the same images for every model, precision and device; `content_keys`, for rows whose place is not known,
    draws others as soon as one bit of a feature differs, and treats two equal rows alike.
    """
    start = _mix(np.array([seed % 2**64], np.uint64))
    return _mix(np.asarray(index).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start)


def kept_share(keys: np.ndarray, fraction: float) -> np.ndarray:
    """(n,) whether rows with these keys are among the share."""
    if fraction == 1.0:
        return np.ones(len(keys), bool)
    return keys < np.uint64(min(fraction * 2.0**64, 2.0**64 - 2048))


def kept_rows(count: int, seed: int, fraction: float) -> np.ndarray:
    """(count,) whether the features of each place in the training split are kept."""
    return kept_share(index_keys(np.arange(count), seed), fraction)


def content_keys(features: np.ndarray, seed: int) -> np.ndarray:
    """(n,) uint64 hash of each row's bits: a multiply-add hash with random odd factors, mixed."""
    factors = np.random.default_rng(seed).integers(0, 2**63, features.shape[1], dtype=np.uint64) * np.uint64(2)
    bits = np.ascontiguousarray(features).view(np.uint32).astype(np.uint64)
    return _mix((bits * (factors + np.uint64(1))).sum(axis=1, dtype=np.uint64))


def _mix(key: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection whose every output bit depends on every input bit."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
