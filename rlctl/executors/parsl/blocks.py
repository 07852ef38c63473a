"""Runs an executor of Parsl without its data-flow kernel: starts it, watches it, replaces blocks, shuts it down."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, RlctlError
from rlctl.executors.local.processes import family, send_signal

FAILURES = 3
"""Blocks that may end one after another without a worker; more are not started."""

_ANSWER_MS = 200
_PERFORM = {"task_executor": {"f": "rlctl.executors.parsl.worker_agent.perform"}}

log = logging.getLogger(__name__)


class Blocks:
    """A ``HighThroughputExecutor`` and its blocks of workers; one that runs already is used as it is.

    Attributes:
        ours: whether it was started here, and is shut down here.
        masters: whether each worker is the master of a block of several hosts.
    """

    def __init__(self, executor: Any) -> None:
        self.ours = executor.interchange_proc is None
        provider = executor.provider
        alone = type(getattr(provider, "launcher", None)).__name__ == "SimpleLauncher"
        self.masters = alone and provider.nodes_per_block > 1 and executor.max_workers_per_node == 1
        self._executor = executor
        self._wanted = 0
        self._failures = 0
        self._ended: set[str] = set()  # blocks
        self._connected: set[str] = set()  # blocks that had a worker
        self._leaving = False

    def start(self, folder: Path, token: str, lease_s: float) -> None:
        """Start the interchange under a ``block_watchdog``, and the first blocks; ``token`` names this controller."""
        if not self.ours:
            return
        executor = self._executor
        runs = folder / f"runinfo-{token}"
        (runs / executor.label).mkdir(parents=True)
        executor.run_dir = str(runs)
        executor.prefetch_capacity = 0  # every task that Parsl holds has a worker
        executor.provider.script_dir = str(runs / "submit_scripts")
        os.makedirs(executor.provider.script_dir)
        executor.launch_cmd = _found(executor.launch_cmd)
        interchange = [_found(executor.interchange_launch_cmd[0]), *executor.interchange_launch_cmd[1:]]
        watchdog = [sys.executable, "-m", "rlctl.executors.parsl.block_watchdog", str(os.getpid())]
        executor.interchange_launch_cmd = [*watchdog, str(folder), token, str(lease_s), *interchange]
        try:
            executor.start()
        except Exception as error:
            raise LaunchError(f"Parsl executor {executor.label} cannot be started: {error}; see {runs}") from error
        executor.command_client.run = self._ask
        self._wanted = max(1, executor.provider.init_blocks)
        executor.scale_out_facade(self._wanted)

    def submit(self, buffer: bytes) -> Future[bytes]:
        """Run ``worker_agent.perform`` on a worker. Never cancel the future: Parsl's thread would die of it."""
        future: Future[bytes] = self._executor.submit_payload(_PERFORM, buffer)
        return future

    def check(self) -> None:
        """Raise LaunchError if Parsl does not work; does not wait."""
        executor = self._executor
        if self._leaving:
            raise LaunchError(f"Parsl executor {executor.label} is being ended")
        if executor.bad_state_is_set:
            raise LaunchError(f"Parsl executor {executor.label} has failed: {executor.executor_exception}")
        if executor.interchange_proc.poll() is not None:
            raise LaunchError(f"the interchange of Parsl executor {executor.label} has ended; see {executor.logdir}")

    def workers(self) -> int:
        """Count the workers that are connected, and replace blocks that have ended."""
        managers = self._ask("MANAGERS")
        self._connected |= {manager["block_id"] for manager in managers}
        if self.ours:
            self._replace_ended()
        usable = [m for m in managers if m["active"] and not m["draining"] and m["block_id"] not in self._ended]
        return sum(manager["worker_count"] for manager in usable)

    def leave(self) -> None:
        """Make requests to the interchange that still wait for an answer give up."""
        self._leaving = self.ours  # others still use one that is not ours

    def stop(self) -> None:
        """End the blocks and the interchange, if they are ours."""
        executor = self._executor
        if not self.ours or executor.interchange_proc is None:
            return
        jobs = [job for block, job in executor.blocks_to_job_id.items() if block not in self._ended]
        with contextlib.suppress(Exception):  # those of a batch system end with their interchange at the latest
            executor.provider.cancel(jobs)
        for job in executor.blocks_to_job_id.values():
            self._kill_local_workers(job)
        executor.shutdown()
        executor.interchange_proc.wait()

    def _ask(self, message: Any, **options: Any) -> Any:
        """Send a request to the interchange; unlike Parsl's own method it does not wait for one that has died."""
        import zmq

        client = self._executor.command_client
        with client._lock:
            self.check()
            while not client.zmq_socket.poll(_ANSWER_MS, zmq.POLLOUT):
                self.check()
            client.zmq_socket.send_pyobj(message)
            while not client.zmq_socket.poll(_ANSWER_MS):
                self.check()
            return client.zmq_socket.recv_pyobj()

    def _replace_ended(self) -> None:
        executor = self._executor
        try:
            executor.poll_facade()
        except RlctlError:
            raise
        except Exception as error:  # a batch system that does not respond now
            log.warning("Parsl cannot tell how its blocks stand: %s", error)
            return
        status = dict(executor.status_facade)
        for block, job in status.items():
            if not job.terminal or block in self._ended:
                continue
            self._ended.add(block)
            self._kill_local_workers(executor.blocks_to_job_id.get(block))
            self._failures = 0 if block in self._connected else self._failures + 1
            message = f": {job.message}" if job.message else ""
            log.warning("Parsl block %s has ended (%s)%s", block, job.status_name, message)
            if self._failures >= FAILURES:
                where = getattr(job, "stderr_path", None) or executor.provider.script_dir
                raise LaunchError(
                    f"{FAILURES} blocks of Parsl have ended without a worker ({job.message}); see {where}"
                )
        lacking = self._wanted - sum(not job.terminal for job in status.values())
        if lacking > 0:
            executor.scale_out_facade(lacking)

    def _kill_local_workers(self, job: Any) -> None:
        """Kill what a manager on this machine leaves behind when it is killed; a batch system does so by itself."""
        resources = getattr(self._executor.provider, "resources", {}).get(job, {})
        if "remote_pid" not in resources:  # no local provider's
            return
        name = Path(resources["script_path"]).name.removesuffix(".sh")
        left = family([], f"JOBNAME={name}\0".encode())
        send_signal([pid for pid in left if b"multiprocessing.spawn" in _command_line(pid)], signal.SIGKILL)


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _found(command: str) -> str:
    """A command of Parsl's own; where PATH lacks it, the one beside the interpreter."""
    program, _, rest = command.partition(" ")
    beside = Path(sys.executable).parent / program
    if shutil.which(program) is None and beside.exists():
        return f"{beside} {rest}".strip()
    return command
