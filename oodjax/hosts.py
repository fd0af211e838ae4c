"""The processes of a run on several hosts: how they find each other, and what becomes of the others when one ends."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from oodjax.command_line import UsageError

# What a cluster tells its processes, where there are several: Slurm, Open MPI, TPU pods (also on GKE).
COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
TPU_HOSTS = "TPU_WORKER_HOSTNAMES"
BEAT_SECONDS = 1.0
SILENT_SECONDS = 30.0  # a process that says nothing for so long is taken for dead
FINISH_SECONDS = 24 * 3600
ALIVE, ENDED = "oodjax/alive/", "oodjax/ended/"
AGAIN = "the same command, started on every host, goes on from here"


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Starts `jax.distributed` where this is one process of several; must come before JAX is first used.

    From then on this process ends when another one has: with one line, and exit code 1.

    Raises:
      UsageError: a part of the description is missing or wrong, or the others are not reached.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if all(value is None for value in given.values()) and not started_by_cluster():
        return
    missing = [name for name, value in given.items() if value is None]
    if len(missing) in (1, 2):
        raise UsageError(f"several processes need {', '.join(given)} together; missing: {', '.join(missing)}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise UsageError(f"--coordinator must be HOST:PORT, got {coordinator!r}")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise UsageError(f"--process must lie in 0..{processes - 1}, got {process}")
    import jax

    try:
        detection = None if coordinator is None else "deactivate"
        jax.distributed.initialize(coordinator, processes, process, cluster_detection_method=detection)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the processes of this run did not find each other: {error}") from error
    _watching.append(_Watch())


def started_by_cluster() -> bool:
    """Whether a cluster has started this process as one of several."""
    if any(os.environ.get(name, "1").isdigit() and int(os.environ.get(name, "1")) > 1 for name in COUNTS):
        return True
    return "," in os.environ.get(TPU_HOSTS, "") and importlib.util.find_spec("libtpu") is not None


def leave_after(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit code of `main`; where it is one of several and fails, the others are told."""
    try:
        code: Any = main()
    except SystemExit as ended:
        code = ended.code
    except Exception:
        if _watching:  # most likely another process has ended: then the watch says which, and ends this one
            time.sleep(SILENT_SECONDS + 5 * BEAT_SECONDS)
        traceback.print_exc()
        code = 1
    if _watching and code:
        _watching[0].tell()
        sys.stdout.flush()
        os._exit(code)  # without JAX's own end, which waits for the other processes
    if _watching:
        _watching[0].finish()
    raise SystemExit(code)


class _Watch:
    """Says that this process lives, and ends it when another one does not.

    JAX by itself ends a process with a dump of its own stack, and minutes later. Through the key-value store of its
    coordinator, which has no public name: Orbax takes it from the same place.
    """

    def __init__(self) -> None:
        from jax._src import distributed

        self._client: Any = distributed.global_state.client
        self._own, self._count = distributed.global_state.process_id, distributed.global_state.num_processes
        self._stopped, self._speaking = threading.Event(), threading.Lock()
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(
            lambda number: self._end("another process of this run has ended, or cannot be reached")
        )
        if self._own:  # JAX aborts a process at once when the first has gone
            ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)
        threading.Thread(target=self._run, daemon=True, name="watch over the other processes").start()

    def tell(self) -> None:
        """Tells the others that this process ends."""
        self.stop()
        try:
            self._client.key_value_set(f"{ENDED}{self._own}", "1", allow_overwrite=True)
        except Exception:
            return  # nobody is there to be told
        if not self._own:  # what was said goes with the first process
            time.sleep(5 * BEAT_SECONDS)

    def finish(self) -> None:
        """Returns when all are done: the first writes the tables and the report after the others' last work."""
        self._client.wait_at_barrier("oodjax/finished", FINISH_SECONDS * 1000)
        self.stop()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        heard = {process: ("", time.monotonic()) for process in range(self._count) if process != self._own}
        beats = 0
        while not self._stopped.wait(BEAT_SECONDS):
            beats += 1
            try:
                self._client.key_value_set(f"{ALIVE}{self._own}", str(beats), allow_overwrite=True)
                said = dict(self._client.key_value_dir_get(ALIVE))
                ended = sorted(name.removeprefix(ENDED) for name, _ in self._client.key_value_dir_get(ENDED))
            except Exception:
                self._end("process 0 of this run has ended, or cannot be reached")
                return
            if ended:
                self._end(f"process {ended[0]} of this run has ended; what it wrote says why")
            for process, (before, since) in heard.items():
                now = said.get(f"{ALIVE}{process}", "")
                if now != before:
                    heard[process] = now, time.monotonic()
                elif time.monotonic() - since > SILENT_SECONDS:
                    self._end(f"process {process} of this run has said nothing for {SILENT_SECONDS:.0f} s")

    def _end(self, why: str) -> None:
        if self._stopped.is_set() or not self._speaking.acquire(blocking=False):
            return
        os.write(2, f"oodjax.run: {why}; {AGAIN}\n".encode())
        os._exit(1)


_watching: list[_Watch] = []  # of this process, one or none
