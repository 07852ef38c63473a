"""Fixtures of several folders of tests."""

from small_disk import disk

__all__ = ["disk"]
