"""Shortened and full forms of tests: a shortened form asserts the same of fewer cases or shorter runs.

``make test-all`` runs all of them in full, as ``RLCTL_TESTS=full`` does; ``RLCTL_FAULTS=full``, ``RLCTL_LEARNING=full``
and ``RLCTL_PHYSICS=full`` run those of one kind in full.
"""

import itertools
import os
from collections.abc import Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def full(kind: str = "TESTS") -> bool:
    """Whether tests of this kind (``FAULTS``, ``LEARNING``, ``PHYSICS``) run in full; no kind: all others."""
    return "full" in (os.environ.get("RLCTL_TESTS"), os.environ.get(f"RLCTL_{kind}"))


def pairs(first: Sequence[A], second: Sequence[B]) -> list[tuple[A, B]]:
    """All combinations in full; otherwise each value once at least, beside those of the other sequence in turn."""
    if full():
        return list(itertools.product(first, second))
    count = max(len(first), len(second))
    return [(first[i % len(first)], second[i % len(second)]) for i in range(count)]
