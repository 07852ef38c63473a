"""Tasks on the workers of Parsl's high-throughput executor; ``docs/parsl.md`` says how it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlctl.executors.parsl.backend import ParslExecutor, Settings

__all__ = ["ParslExecutor", "Settings"]


def __getattr__(name: str) -> Any:  # loaded when used: workers import this package too
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.backend"), name)
