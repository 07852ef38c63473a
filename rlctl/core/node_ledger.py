"""The ledger of a driver: node-seconds that are allocated, and core-seconds that tasks use of them."""

from __future__ import annotations

from rlctl.core.task import Event, TaskId, TaskState


class Ledger:
    """Adds up what was allocated and what was used.

    Attributes:
        nodes: that are allocated now.
        node_seconds: allocated so far: nodes of the allocation times elapsed time, busy or not.
        core_seconds: occupied by attempts of tasks that have ended.
    """

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.node_seconds = 0.0
        self.core_seconds = 0.0
        self._last_s = 0.0
        self._began: dict[TaskId, tuple[float, int]] = {}

    def elapse(self, time_s: float) -> None:
        """The clock stands at ``time_s``."""
        self.node_seconds += self.nodes * (time_s - self._last_s)
        self._last_s = time_s

    def task(self, event: Event, cores: int) -> None:
        """Book the beginning of an attempt on so many cores, or its end; the result of a task has its own cores."""
        if event.state is TaskState.RUNNING:
            self._began.setdefault(event.uid, (event.time_s, cores))
        elif event.state is TaskState.QUEUED and event.uid in self._began:  # it is repeated
            since_s, held = self._began.pop(event.uid)
            self.core_seconds += held * (event.time_s - since_s)
        elif event.result is not None:
            self._began.pop(event.uid, None)
            self.core_seconds += event.result.cores * (event.result.ended_s - event.result.started_s)
