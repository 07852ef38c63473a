"""The backend for workers of Parsl's high-throughput executor; ``docs/parsl.md`` describes its use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlctl.executors.parsl.options import ParslOptions
    from rlctl.executors.parsl.parsl_executor import ParslExecutor

__all__ = ["ParslExecutor", "ParslOptions"]

_MODULES = {"ParslExecutor": "parsl_executor", "ParslOptions": "options"}


def __getattr__(name: str) -> Any:  # loaded when used: workers import this package too
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
