"""Records comparisons and judgements in the manifest of a saved policy."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import MAX_SCORES, Judgement, as_data, to_bytes, validate
from rlctl.bundle.network import NumpyPolicy
from rlctl.core.errors import PolicyError
from rlctl.core.policy import Policy
from rlctl.environments.residual import ResidualPolicy


def recordable(policy: Policy) -> NumpyPolicy:
    """The saved policy behind ``policy``; PolicyError if its manifest cannot record scores."""
    saved = policy.network if isinstance(policy, ResidualPolicy) else policy
    if not isinstance(saved, NumpyPolicy) or saved.folder is None:
        raise PolicyError(f"policy {policy.name} is not a saved policy: only trained policies record scores")
    if saved.deterministic != saved.manifest.deterministic:
        raise PolicyError(f"policy {policy.name} differs from the saved one in deterministic: load it unchanged")
    if len(saved.manifest.scores) >= MAX_SCORES:
        raise PolicyError(f"{saved.folder}: contains {MAX_SCORES} comparisons already, the largest number")
    if not os.access(saved.folder, os.W_OK | os.X_OK):
        raise PolicyError(f"{saved.folder}: cannot be written, so that scores cannot be recorded: copy the policy")
    return saved


def record(saved: NumpyPolicy, name: str, comparison: Mapping[str, Any], config_hash: str) -> None:
    """Add a comparison, with the date, to the manifest, atomically.

    Args:
        saved: from ``recordable``; PolicyError if its folder now contains another policy, or cannot be written.
        name: name of the policy in the comparison.
    """
    score = {"date": now(), "policy": name, "config_hash": config_hash, **comparison}
    _rewrite(saved, "scores", lambda data: {"scores": [*data["scores"], score]})


def record_judgement(saved: NumpyPolicy, judgement: Judgement) -> None:
    """Write a judgement into the manifest, atomically, in place of an earlier one; errors are as in ``record``."""
    _rewrite(saved, "judgement", lambda _: {"judgement": judgement.model_dump(mode="json")})


def now() -> str:
    """The date, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _rewrite(saved: NumpyPolicy, what: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    folder = saved.folder
    assert folder is not None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # two comparisons may end at the same time
        found = saved_policy.load(folder)
        if found.digest != saved.digest:
            raise PolicyError(f"{folder}: replaced since the comparison began; nothing was recorded")
        data = as_data(found.manifest)
        data |= change(data)
        _replace(handle, to_bytes(as_data(validate(data, folder / saved_policy.MANIFEST))), folder)
    except OSError as error:
        raise PolicyError(
            f"{folder}: the {what} cannot be written ({error.strerror}); the policy is as it was"
        ) from None
    finally:
        os.close(handle)


def _replace(handle: int, manifest: bytes, folder: Path) -> None:
    """Replace the manifest atomically."""
    if len(manifest) > saved_policy.MAX_MANIFEST:
        raise PolicyError(f"{folder}: the manifest is full; nothing was recorded")
    new = f".{saved_policy.MANIFEST}.new"
    _remove(handle, new)  # left by a killed process
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=handle), "wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, saved_policy.MANIFEST, src_dir_fd=handle, dst_dir_fd=handle)
    except OSError:
        _remove(handle, new)
        raise
    os.fsync(handle)


def _remove(handle: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=handle)
