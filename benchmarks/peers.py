"""The systems that are compared, each with two workers, behind one interface: ``submit`` returns a future.

Each is given what is good for it: no monitoring, no encryption, short polling. What it imports, it imports when it is
started, so that a system that is not installed disturbs nobody.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import functions

WORKERS = 2


class System:
    """A system at work. ``folder`` is for its temporary files, ``disk`` for what has to be durable."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, disk: Path) -> None:
        self.executor: Any = None

    @classmethod
    def missing(cls) -> list[str]:
        """What would have to be installed."""
        return [name for name in cls.packages if importlib.util.find_spec(name) is None]

    def submit(self, function: Callable[..., Any], argument: Any) -> Future[Any]:
        return self.executor.submit(function, argument)

    def close(self) -> None:
        self.executor.shutdown()


class Rlctl(System):
    name = "rlctl"

    def __init__(self, folder: Path, disk: Path) -> None:
        from rlctl.executors.local.backend import LocalExecutor

        self.executor = LocalExecutor(max_workers=WORKERS)


class RlctlDurable(Rlctl):
    """SQLite in WAL mode with synchronous=FULL: a result is given when the device says that it has the record."""

    name = "rlctl, durable journal"

    def __init__(self, folder: Path, disk: Path) -> None:
        from rlctl.executors.event_log import Journal

        super().__init__(folder, disk)
        self.journal = Journal.create(disk / "journal.db", {})
        self.executor.attach(self.journal)

    def close(self) -> None:
        super().close()
        self.journal.close()


class Pool(System):
    name = "ProcessPoolExecutor"

    def __init__(self, folder: Path, disk: Path) -> None:
        self.executor = ProcessPoolExecutor(WORKERS)


class Parsl(System):
    """The high-throughput executor without Parsl's data-flow kernel, which is faster."""

    name = "Parsl HTEX raw"
    packages = ("parsl",)

    def __init__(self, folder: Path, disk: Path) -> None:
        self.executor = _htex()
        self.executor.run_dir = str(folder)
        self.executor.provider.script_dir = str(folder)
        self.executor.start()
        self.executor.scale_out_facade(1)  # otherwise the data-flow kernel's business

    def submit(self, function: Callable[..., Any], argument: Any) -> Future[Any]:
        return self.executor.submit(function, {}, argument)


class Colmena(System):
    """Tasks through its queues to a Parsl task server; a thread takes the results, as an agent would."""

    name = "Colmena on Parsl"
    packages = ("colmena", "parsl")

    def __init__(self, folder: Path, disk: Path) -> None:
        from colmena.queue.python import PipeQueues
        from colmena.task_server.parsl import ParslTaskServer
        from parsl.config import Config

        logging.getLogger("colmena").setLevel(logging.ERROR)
        self.queues = PipeQueues()
        methods = [functions.echo, functions.nap, functions.program]
        config = Config(executors=[_htex()], run_dir=str(folder / "runinfo"), strategy="none")
        self.server = ParslTaskServer(methods, self.queues, config)
        self.server.start()
        self._lock = threading.Lock()
        self._futures: dict[str, Future[Any]] = {}
        threading.Thread(target=self._take, daemon=True).start()

    def submit(self, function: Callable[..., Any], argument: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self._futures[self.queues.send_inputs(argument, method=function.__name__)] = future
        return future

    def _take(self) -> None:
        while True:
            try:
                result = self.queues.get_result()
            except (EOFError, OSError):
                return
            with self._lock:
                future = self._futures.pop(result.task_id)
            if result.success:
                future.set_result(result.value)
            else:
                future.set_exception(RuntimeError(str(result.failure_info)))

    def close(self) -> None:
        self.queues.send_kill_signal()
        self.server.join(20)


class Dask(System):
    name = "Dask"
    packages = ("distributed",)

    def __init__(self, folder: Path, disk: Path) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(folder),
            silence_logs=logging.ERROR,
        )
        self.client = Client(self.cluster)

    def submit(self, function: Callable[..., Any], argument: Any) -> Future[Any]:
        return self.client.submit(function, argument, pure=False)

    def close(self) -> None:
        self.client.close()
        self.cluster.close()


class Executorlib(System):
    """Warm workers (``block_allocation``); without them each call starts an interpreter."""

    name = "executorlib"
    packages = ("executorlib",)

    def __init__(self, folder: Path, disk: Path) -> None:
        from executorlib import SingleNodeExecutor

        self.executor = SingleNodeExecutor(max_workers=WORKERS, block_allocation=True, hostname_localhost=True)


SYSTEMS: tuple[type[System], ...] = (Rlctl, RlctlDurable, Pool, Parsl, Colmena, Dask, Executorlib)


def _htex() -> Any:
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    logging.getLogger("parsl").setLevel(logging.ERROR)
    return HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        max_workers_per_node=WORKERS,
        cores_per_worker=1e-6,  # the number of workers alone decides
        heartbeat_period=1,
        heartbeat_threshold=5,
        encrypted=False,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
