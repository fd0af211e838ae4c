"""Joins the processes of a run on several hosts: found by JAX where a cluster starts them, or named by hand."""

from __future__ import annotations

import importlib.util
import os

from oodjax.command_line import UsageError

# What a cluster tells its processes, where there are several: Slurm, Open MPI, TPU pods (also on GKE).
COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
TPU_HOSTS = "TPU_WORKER_HOSTNAMES"
HEARTBEAT_SECONDS = 30  # a process that is silent for this long is taken for dead, and the others end


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Starts `jax.distributed` where this is one process of several; must come before JAX is first used.

    Raises:
      UsageError: a part of the description is missing or wrong, or the others are not reached.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if all(value is None for value in given.values()) and not started_by_cluster():
        return
    missing = [name for name, value in given.items() if value is None]
    if len(missing) in (1, 2):
        raise UsageError(f"several processes need {', '.join(given)} together; missing: {', '.join(missing)}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UsageError(f"--coordinator must be HOST:PORT, got {coordinator!r}")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise UsageError(f"--process must lie in 0..{processes - 1}, got {process}")
    import jax

    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the processes of this run did not find each other: {error}") from error


def started_by_cluster() -> bool:
    """Whether a cluster has started this process as one of several."""
    if any(os.environ.get(name, "1").isdecimal() and int(os.environ.get(name, "1")) > 1 for name in COUNTS):
        return True
    return "," in os.environ.get(TPU_HOSTS, "") and importlib.util.find_spec("libtpu") is not None
