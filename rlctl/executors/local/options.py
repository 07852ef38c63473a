"""The options of the local executor."""

from __future__ import annotations

from rlctl.executors.options import SharedOptions


class LocalOptions(SharedOptions):
    """``executor.options`` of the local executor.

    Attributes:
        pin: whether tasks may use only the cores that they were given.
        oversubscribe: whether more cores and GPUs than this machine has may be allocated, to rehearse another machine.
        enforce_memory: whether a task that uses more memory than it asked for is stopped.
    """

    pin: bool = True
    oversubscribe: bool = False
    enforce_memory: bool = True
