"""One run on several devices and by several processes: the same tables, and a clear end where one of them dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from oodjax.command_line import UsageError
from oodjax.hosts import join, started_by_cluster

LABELS = ("knn:k=7", "odin:temperature=10+noise=0.0028")
DETECTORS = (*tiny.DETECTORS, "vim", "react", "nnguide", "tempscale", *LABELS)
RUNS = {"8 devices": (1, 8), "2 processes": (2, 1), "4 processes": (4, 1), "2 processes of 3 devices": (2, 3)}


@pytest.mark.parametrize(
    "given, named",
    [
        (("127.0.0.1:1", None, 0), "--processes"),
        ((None, 2, None), "--coordinator, --process"),
        (("somewhere", 2, 0), "HOST:PORT"),
        (("127.0.0.1:1", 2, 2), "0..1"),
    ],
)
def test_what_does_not_describe_a_process_is_named(given, named):
    with pytest.raises(UsageError, match=named):
        join(*given)


@pytest.mark.parametrize(
    "variables, several",
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"SLURM_NTASKS": "x"}, False),
    ],
)
def test_a_cluster_is_known_by_how_many_processes_it_says(variables, several, monkeypatch):
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert started_by_cluster() is several


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The study file of the tiny study, and a cache of compiled programs."""
    folder = tmp_path_factory.mktemp("images")
    return tiny.write_study(folder), folder / "cache"


def start(
    images,
    out: Path,
    processes: int = 1,
    devices: int = 1,
    program: tuple[str, ...] = ("-m", "oodjax.run"),
    detectors: tuple[str, ...] = DETECTORS,
) -> list[subprocess.Popen]:
    """The processes of one run."""
    study, cache = images
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, *program, str(study), "--out", str(out), "--detectors", *detectors]
    several = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(processes), "--process"]
    return [
        subprocess.Popen(
            [*command, *([*several, str(i)] if processes > 1 else [])],
            env=environment,
            text=True,
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(processes)
    ]


def end(run: list[subprocess.Popen], timeout: float | None = None) -> list[tuple[int, str]]:
    """(exit code, what was written to stderr) of each process."""
    return [(process.returncode, error) for process in run for _, error in [process.communicate(timeout=timeout)]]


def wait_for(run: list[subprocess.Popen], path: Path) -> None:
    while not path.exists():
        assert all(process.poll() is None for process in run), [process.communicate() for process in run]
        time.sleep(0.02)


def arrays(out: Path) -> dict[str, np.ndarray]:
    """Set and detector -> kept scores, and the training statistics."""
    found = {}
    for path in (out / "store" / "scores").rglob("scores-*.npy"):
        names = json.loads((path.parent / "store.json").read_text())["entries"]["columns"]["value"]
        columns = np.load(path).T
        where = path.parent.relative_to(out).as_posix()
        found |= {f"{where}/{name}": column for (name, _), column in zip(names, columns, strict=True)}
    return found


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """What one process with one device makes."""
    out = tmp_path_factory.mktemp("alone")
    assert [code for code, _ in end(start(images, out))] == [0]
    return out


def same_results(out: Path, alone: Path) -> None:
    ours, theirs = (pd.read_csv(folder / "results.csv") for folder in (out, alone))
    names = ["model", "detector", "dataset", "hyperparameters", "n_id", "n_ood"]
    pd.testing.assert_frame_equal(ours[names], theirs[names])
    scores, expected = arrays(out), arrays(alone)
    assert scores.keys() == expected.keys() and len(expected) == 2 * 3 * len(DETECTORS)
    for name, column in expected.items():
        step = np.spacing(np.abs(column).max())  # one of float32, where scores hardly differ from each other
        assert np.abs(scores[name] - column).max() <= max(1e-5 * column.std(), step), name


@pytest.mark.slow
@pytest.mark.parametrize("processes, devices", RUNS.values(), ids=RUNS)
def test_devices_and_processes_make_the_same_tables(processes, devices, images, alone, tmp_path):
    ended = end(start(images, tmp_path, processes, devices))
    assert [code for code, _ in ended] == [0] * processes, ended
    same_results(tmp_path, alone)
    counts = ("decoded_images", "forward_passes", "odin_passes")
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (tmp_path, alone))
    assert [ours[name] for name in counts] == [theirs[name] for name in counts]
    assert not list(tmp_path.rglob("*partial")) and not list(tmp_path.rglob("host-*"))


@pytest.mark.slow
def test_what_a_model_cannot_carry_ends_every_process_with_one_line(images, tmp_path):
    assert [code for code, _ in end(start(images, tmp_path, 2, detectors=("msp", "knn")))] == [0, 0]
    ended = end(start(images, tmp_path, 2, detectors=("msp", "knn:k=999")), timeout=120)  # no pass: scoring finds it
    assert [code for code, _ in ended] == [2, 2]
    for _, error in ended:
        assert "knn:k=999 of second: knn:k=999: k 999 exceeds the bank's 200 features" in error


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_dies_the_other_says_so_and_a_rerun_goes_on(victim, images, alone, tmp_path):
    run = start(images, tmp_path, 2)
    wait_for(run, tmp_path / "store" / "outputs")
    run[victim].kill()
    code, error = end([run[1 - victim]], timeout=60)[0]  # the promise: within a minute
    assert code == 1
    assert "of this run has ended" in error.splitlines()[-1] or "has said nothing" in error.splitlines()[-1]
    assert "goes on from here" in error.splitlines()[-1] and "Traceback" not in error
    end([run[victim]])
    ended = end(start(images, tmp_path, 1 + victim))
    assert {code for code, _ in ended} == {0}, ended
    same_results(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_terminated_ends_the_other_with_one_line(victim, images, tmp_path):
    run = start(images, tmp_path, 2)
    wait_for(run, tmp_path / "store" / "outputs")
    run[victim].send_signal(signal.SIGTERM)
    ended = end(run, timeout=60)
    assert [ended[victim][0], ended[1 - victim][0]] == [143, 1], ended
    assert ended[victim][1].splitlines()[-1].startswith("oodjax.run: terminated")
    assert f"process {victim} of this run has ended" in ended[1 - victim][1].splitlines()[-1]


SLOW_REPORT = """
import sys, time
from oodjax import hosts, run
hosts.SILENT_SECONDS = 3.0
report = run._report
run._report = lambda folder: (time.sleep(8), report(folder))
sys.argv = ["oodjax.run", *sys.argv[1:]]
hosts.leave_after(run.main)
"""


@pytest.mark.slow
def test_a_process_that_is_done_waits_for_the_one_that_writes_the_report(images, tmp_path):
    run = start(images, tmp_path, 2, program=("-c", SLOW_REPORT))
    assert [code for code, _ in end(run)] == [0, 0]


@pytest.mark.slow
def test_a_second_run_of_two_processes_is_told_who_holds_the_folder(images, tmp_path):
    first = start(images, tmp_path)
    wait_for(first, tmp_path / "store" / "outputs")
    first[0].send_signal(signal.SIGSTOP)
    try:
        ended = end(start(images, tmp_path, 2), timeout=120)
    finally:
        first[0].send_signal(signal.SIGCONT)
    assert [code for code, _ in ended] == [2, 1], ended
    assert f"in use by process {first[0].pid} on" in ended[0][1]
    assert "process 0 of this run has ended" in ended[1][1].splitlines()[-1]
    assert end(first)[0][0] == 0
