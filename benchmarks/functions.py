"""The functions that all systems run: in a module of their own, so that workers import nothing else for them."""

from __future__ import annotations

import os
import time


def echo(value: int) -> int:
    """Nothing."""
    return value


def nap(seconds: float) -> float:
    """Wait without working."""
    time.sleep(seconds)
    return seconds


def program(number: int) -> int:
    """Run a program that does nothing, in the cheapest way."""
    pid = os.posix_spawn("/bin/true", ["/bin/true"], {})
    return os.waitpid(pid, 0)[1]
