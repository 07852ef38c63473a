"""Fixtures of several folders of tests."""

from mpich_venv import mpich
from small_disk import disk

__all__ = ["disk", "mpich"]
