"""Shortened and full forms of tests: a shortened form asserts the same of fewer cases or shorter runs.

``make test-all`` runs all of them in full, as ``RLCTL_TESTS=full`` does; ``RLCTL_FAULTS=full``, ``RLCTL_LEARNING=full``
and ``RLCTL_PHYSICS=full`` run those of one kind in full.
"""

import os


def full(kind: str = "TESTS") -> bool:
    """Whether tests of this kind (``FAULTS``, ``LEARNING``, ``PHYSICS``) run in full; no kind: all others."""
    return "full" in (os.environ.get("RLCTL_TESTS"), os.environ.get(f"RLCTL_{kind}"))
