"""Workers of Parsl on this machine: a few that all tests of a session share, since they take seconds to start."""

import functools
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

ABSENT = importlib.util.find_spec("parsl") is None
needs_parsl = pytest.mark.skipif(ABSENT, reason="Parsl is not installed: pip install 'rlctl[parsl]'")


def executor(workers: int, **options: Any) -> Any:
    """A high-throughput executor, not started."""
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    return HighThroughputExecutor(
        label="here",
        address="127.0.0.1",
        max_workers_per_node=workers,
        cores_per_worker=1e-6,  # the number of workers alone decides
        heartbeat_period=1,
        heartbeat_threshold=5,
        encrypted=False,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        **options,
    )


class Shared:
    """Started when first asked for."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    @functools.cached_property
    def executor(self) -> Any:
        from rlctl.executors.parsl.blocks import Blocks

        self._folder = Path(tempfile.mkdtemp(prefix="rlctl-parsl-"))
        started = executor(6)
        self._blocks = Blocks(started)
        self._blocks.start(self._folder, "shared", 5.0)
        return started

    def stop(self) -> None:
        if self._folder is not None:
            self._blocks.stop()
            shutil.rmtree(self._folder)
            self._folder = None
            del self.executor  # the next one who asks starts others


shared = Shared()
