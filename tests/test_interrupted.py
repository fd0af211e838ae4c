"""What a killed run, or one on a full disk, leaves is gone on with by the next: with the same bytes in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tiny
from interruptions import Killed, Moments, disk_full, run

from oodjax import fold
from oodjax.detectors import NAMES
from oodjax.store import LOCK, PARTIAL

HERE = Path(__file__).parent
KILLS = 30
TOTAL = sum(count for _, _, count, _ in tiny.SETS.values())
UNIT = 2 * 32  # two batches of training after its last snapshot, or a set, which is no larger


def content(folder: Path) -> dict[str, bytes]:
    """Everything that is in a folder, but for who holds it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a run leaves that nothing interrupts, and its number of moments."""
    folder, moments = tmp_path_factory.mktemp("straight"), Moments()
    engine, _ = run(folder, moments)
    assert engine.counts.decoded == TOTAL
    return content(folder), moments.seen


def killed(folder: Path, last: int, **settings) -> int:
    """Kills a run at a moment; returns the images it had decoded."""
    moments = Moments(last)
    with pytest.raises(Killed):
        run(folder, moments, **settings)
    return moments.engine.counts.decoded


def test_killed_at_any_moment_the_rerun_leaves_the_same_bytes(straight, tmp_path):
    whole, moments = straight
    for i, last in enumerate(np.random.default_rng(0).integers(1, moments + 1, 4)):
        folder = tmp_path / str(i)
        before = killed(folder, int(last))
        engine, lines = run(folder, Moments())
        assert content(folder) == whole, f"killed at moment {last}"
        assert lines == []  # nothing half-written was taken for damaged
        assert before + engine.counts.decoded <= TOTAL + UNIT


def test_killed_again_and_again_a_run_ends_with_the_same_bytes(straight, tmp_path):
    whole, _ = straight
    rng, decoded, kills = np.random.default_rng(1), 0, 0
    while True:
        moments = Moments(int(rng.integers(200, 500)))
        try:
            engine, lines = run(tmp_path, moments)
            break
        except Killed:
            decoded, kills = decoded + moments.engine.counts.decoded, kills + 1
    assert kills >= 3 and lines == []
    assert content(tmp_path) == whole
    assert decoded + engine.counts.decoded <= TOTAL + kills * UNIT


SETTINGS = {"whole bank": {}, "share of the bank": {"bank_fraction": 0.5}, "one detector": {"detectors": ("mds",)}}


def stopped_in_training(folder: Path, snapshots: int, **settings) -> None:
    """A run that is killed right after so many snapshots; there is one of every model after each batch."""
    count = 0
    snapshot = fold.Fold._snapshot

    def counted(self, done):
        nonlocal count
        snapshot(self, done)
        count += 1
        if count == snapshots:
            raise Killed

    with mock.patch.object(fold.Fold, "_snapshot", counted), pytest.raises(Killed):
        run(folder, Moments(), **settings)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_resumed_training_pass_reads_the_rest_and_keeps_the_same_statistics(settings, tmp_path):
    run(tmp_path / "straight", Moments(), **settings)
    stopped_in_training(tmp_path / "killed", 2 * 4, **settings)
    engine, lines = run(tmp_path / "killed", Moments(), **settings)
    assert engine.counts.decoded == TOTAL - 4 * 32 and lines == []
    assert engine.counts.forwards == 2 * engine.counts.decoded
    assert content(tmp_path / "killed") == content(tmp_path / "straight")


def test_a_run_killed_between_the_snapshots_of_two_models_reads_the_rest_once(straight, tmp_path):
    stopped_in_training(tmp_path, 9)  # the first model's fifth snapshot, the second's fourth
    engine, _ = run(tmp_path, Moments())
    assert engine.counts.decoded == TOTAL - 4 * 32 and engine.counts.forwards == 2 * TOTAL - 9 * 32
    assert content(tmp_path) == straight[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200] + b"x" + path.read_bytes()[201:])


HARMS = {
    "gone": (Path.unlink, "features"),
    "truncated": (cut, "energies"),
    "flipped": (flip, "features"),
    "flipped means": (flip, "layer_means"),
    "flipped marks": (flip, "seen"),
}


@pytest.mark.parametrize("harm, name", HARMS.values(), ids=HARMS)
def test_rows_that_are_not_those_of_the_snapshot_are_made_anew(harm, name, tmp_path):
    settings = {"models": 1, "detectors": ("knn", "nnguide", "ats")}
    run(tmp_path / "straight", Moments(), **settings)
    stopped_in_training(tmp_path / "killed", 3, **settings)
    (victim,) = (tmp_path / "killed").rglob(f".{name}-*{PARTIAL}")
    harm(victim)
    engine, lines = run(tmp_path / "killed", Moments(), **settings)
    assert engine.counts.decoded == TOTAL
    assert len(lines) == 1 and "model0 on train" in lines[0] and "anew" in lines[0]
    assert content(tmp_path / "killed") == content(tmp_path / "straight")


def test_a_snapshot_of_other_batches_is_not_gone_on_with(tmp_path):
    settings = {"models": 1, "detectors": ("knn",)}
    stopped_in_training(tmp_path / "killed", 3, **settings)
    engine, _ = run(tmp_path / "killed", Moments(), batch_size=20, **settings)
    assert engine.counts.decoded == TOTAL
    run(tmp_path / "straight", Moments(), batch_size=20, **settings)
    assert content(tmp_path / "killed") == content(tmp_path / "straight")


def test_on_a_full_disk_nothing_half_written_stays_or_is_believed(straight, tmp_path):
    whole, moments = straight
    for i, last in enumerate(np.random.default_rng(2).integers(1, moments + 1, 2)):
        folder = tmp_path / str(i)
        with pytest.raises(OSError, match="No space left"):
            run(folder, Moments(int(last), disk_full, calls=("pwrite", "fsync", "ftruncate", "mkdir", "open")))
        left = [path for path in folder.rglob("*") if path.name.endswith("partial")]
        assert all(path.parent.parent.name == "statistics" for path in left)  # which a snapshot goes on with
        engine, lines = run(folder, Moments())
        assert content(folder) == whole and lines == []


def environment(cache: Path) -> dict[str, str]:
    """Of a process that finds this module's neighbours, and the programs that others have compiled."""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **compiled}


@pytest.mark.slow
def test_sigkill_at_thirty_moments(tmp_path):
    def once(folder: Path, last: int = 0) -> int:
        command = [sys.executable, str(HERE / "interruptions.py"), str(folder), str(last), str(folder) + ".log"]
        done = subprocess.run(command, env=environment(tmp_path / "cache"), capture_output=True, text=True)
        assert done.returncode == (-signal.SIGKILL if last else 0), done.stderr
        return 0 if last else int(done.stdout)

    moments = once(tmp_path / "straight")
    for i, last in enumerate(np.random.default_rng(3).integers(1, moments + 1, KILLS)):
        folder = tmp_path / str(i)
        once(folder, int(last))
        once(folder)
        assert content(folder) == content(tmp_path / "straight"), f"killed at moment {last}"
        decoded = [int(line) for line in Path(f"{folder}.log").read_text().split()]
        assert sum(decoded) <= TOTAL + UNIT


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A function that starts the command line on the tiny study."""
    folder = tmp_path_factory.mktemp("files")
    study, env = tiny.write_study(folder), environment(folder / "cache")

    def start(out: Path, *options: str) -> subprocess.Popen:
        line = [sys.executable, "-m", "oodjax.run", str(study), "--out", str(out), *options]
        return subprocess.Popen(line, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, error = process.communicate()
    return process.returncode, error


def until(process: subprocess.Popen, path: Path) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_a_signal_is_one_line_and_the_same_command_goes_on(command, tmp_path):
    options = ["--detectors", *tiny.DETECTORS]
    assert finish(command(tmp_path / "straight", *options))[0] == 0
    waits = {"statistics": signal.SIGTERM, "outputs": signal.SIGINT, "outputs/first/near": signal.SIGTERM}
    for part, number in waits.items():
        process = command(tmp_path / "out", *options)
        until(process, tmp_path / "out" / "store" / part)
        process.send_signal(number)
        code, error = finish(process)
        assert code == 128 + number and error.count("\n") == 1 and "the same command goes on" in error
        assert not list((tmp_path / "out").rglob("*partial"))
    assert finish(command(tmp_path / "out", *options)) == (0, "")
    assert (tmp_path / "out" / "results.csv").read_bytes() == (tmp_path / "straight" / "results.csv").read_bytes()


@pytest.mark.slow
def test_a_second_run_is_told_who_holds_the_folder(command, tmp_path):
    first = command(tmp_path, "--detectors", "msp")
    until(first, tmp_path / "store")
    code, error = finish(command(tmp_path, "--detectors", "knn"))
    assert code == 2 and error.count("\n") == 1 and f"process {first.pid} on " in error
    assert finish(first)[0] == 0


@pytest.mark.slow
def test_a_narrower_rerun_leaves_the_whole_studys_tables(command, tmp_path):
    assert finish(command(tmp_path, "--detectors", *tiny.DETECTORS))[0] == 0
    tables = [(tmp_path / name).read_bytes() for name in ("results.csv", "models.csv")]
    narrow = ["--detectors", "mds", "--models", "second", "--datasets", "far"]
    assert finish(command(tmp_path, *narrow))[0] == 0
    assert [(tmp_path / name).read_bytes() for name in ("results.csv", "models.csv")] == tables
    run_json = json.loads((tmp_path / "run.json").read_text())
    assert run_json["asked"] == {"models": ["second"], "detectors": ["mds"], "datasets": ["far"]}
    assert run_json["configuration"]["detectors"] == [d for d in NAMES if d in tiny.DETECTORS]
    assert run_json["configuration"]["models"] == ["first", "second"]
    assert run_json["decoded_images"] == run_json["forward_passes"] == 0
