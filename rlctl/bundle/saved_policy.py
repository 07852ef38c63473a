"""Saved policies, or bundles: a folder of plain arrays and a manifest, read back and used with NumPy alone.

A login node or a controller of a real campaign needs no deep-learning library to use a trained network: loading is
instant, a decision takes microseconds, and nothing in the folder can run code: no pickle is read, no link is followed,
nothing is decompressed, every size is bounded before it is used. Stable-Baselines3's ``model.zip``, which lies beside
the weights for further training, does hold pickles; it is only hashed here, never opened.

The checksums show damage and exchanged files. They do not show who made a bundle: anyone who can write the folder can
make another. So a run records the digest of the bundle that it began with, and is resumed with no other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rlctl.bundle import arrays, golden
from rlctl.bundle.actions import action_distribution, action_heads
from rlctl.bundle.folder import Folder
from rlctl.bundle.manifest import AGAIN, MIN_PAIRS, SCHEMA, Manifest, as_data, parse, to_bytes, validate
from rlctl.bundle.network import NumpyPolicy, declared_weights
from rlctl.bundle.spaces import Spaces, build, describe, length
from rlctl.core.errors import PolicyError

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "WEIGHTS",
    "NumpyPolicy",
    "action_heads",
    "describe",
    "load",
    "require_savable",
    "save",
]

WEIGHTS, GOLDEN, MANIFEST = "weights.npz", "golden.npz", "manifest.json"
ROOM = 1 << 20
"""That a manifest keeps for scores and what is said to people."""
MAX_MANIFEST, MAX_FILE = 4 << 20, 1 << 32


def save(
    folder: Path,
    weights: Mapping[str, NDArray[Any]],
    manifest: Mapping[str, Any],
    observations: NDArray[Any],
    masks: NDArray[Any] | None = None,
    files: Sequence[Path] = (),
) -> None:
    """Write a saved policy; the folder appears whole or not at all, and replaces an older one.

    Args:
        weights: ``"0.weight"`` (outputs, inputs), ``"0.bias"``, ``"1.weight"`` ... of the actor, first layer first; the
            last layer gives the logits of all choices, or the means. For Box actions ``"log_std"`` too.
        manifest: JSON-ready; see ``rlctl.bundle.manifest.Manifest``. Needed: ``name``, ``campaign`` (``{"name",
            "version"}``), ``spaces`` (from ``describe``), ``network``, ``deterministic``. All else is kept for people.
        observations: at least 64 real ones, flat, in rows: the manifest holds their statistics, and the answers to
            some of them become the golden pairs.
        masks: allowed choices at each observation, in rows; None: all.
        files: further files that are copied into the folder.

    Raises:
        PolicyError: the arguments do not fit each other.
    """
    folder = Path(os.path.realpath(folder.parent)) / folder.name  # tempfile forgets the links before ".."
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        golden.require_usable(observations, masks)
        _write(temporary / WEIGHTS, arrays.pack({name: np.asarray(w, np.float32) for name, w in weights.items()}))
        for file in files:
            shutil.copyfile(file, temporary / file.name)
        data = {**manifest, "schema": SCHEMA, "observations": golden.statistics(observations)}
        data |= {"golden_pairs": MIN_PAIRS, "files": {WEIGHTS: _entry(temporary / WEIGHTS)}}
        with Folder(temporary) as opened:
            policy = _policy(opened, validate(data, folder / MANIFEST), True)
        pairs = golden.make(policy, observations, masks)
        _write(temporary / GOLDEN, arrays.pack(pairs))
        data |= {"golden_pairs": len(pairs["observations"])}
        data |= {"files": {path.name: _entry(path) for path in sorted(temporary.iterdir())}}
        _write(temporary / MANIFEST, to_bytes(as_data(validate(data, folder / MANIFEST))))
        load(temporary)
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_savable(manifest: Mapping[str, Any]) -> None:
    """Refuse before a training what ``save`` would refuse after it, by the same checks.

    Args:
        manifest: as for ``save``.

    Raises:
        PolicyError: spaces, network or names are not what a saved policy can have.
    """
    data = {**manifest, "schema": SCHEMA, "golden_pairs": MIN_PAIRS, "files": {}}
    try:
        numbers = length(Spaces.model_validate(data["spaces"]).observation)
        longest = np.full((MIN_PAIRS, numbers), -np.finfo(np.float64).tiny)  # of all numbers the one of most digits
        whole = Manifest.model_validate(data | {"observations": golden.statistics(longest)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PolicyError(f"a policy with such a manifest cannot be saved: {where}: {first['msg']}") from None
    weights = declared_weights(whole)
    action = build(whole.spaces.action)
    log_std = np.zeros(weights["log_std"][0], np.float32) if "log_std" in weights else None
    golden.most_pairs(numbers, action_distribution(action, log_std, whole.network.output).outputs)
    if len(to_bytes(as_data(whole))) > MAX_MANIFEST - ROOM:
        raise PolicyError("the spaces have too many bounds of their own: give all numbers of a Box the same")


def load(folder: Path, deterministic: bool | None = None) -> NumpyPolicy:
    """Read a saved policy and check that it is whole.

    Args:
        deterministic: overrides the manifest.

    Raises:
        PolicyError: it is missing, damaged, of an unknown schema, or not what its manifest says; one line.
    """
    with Folder(folder) as opened:
        if not os.path.lexists(folder / MANIFEST):
            inner = folder / "policy"  # where a training puts it, when it has ended
            there = (
                f"but {inner} is: give that" if (inner / MANIFEST).exists() else "a training that has ended leaves one"
            )
            raise PolicyError(f"{folder} is no saved policy, it has no {MANIFEST}; {there}")
        manifest = parse(opened.read(MANIFEST, MAX_MANIFEST), folder / MANIFEST)
        for name in sorted({*manifest.files} - {WEIGHTS, GOLDEN}):
            _require_same(folder / name, opened.sha256(name, min(manifest.files[name].bytes, MAX_FILE)), manifest)
        policy = _policy(opened, manifest, deterministic)
        with _about(folder / GOLDEN):
            golden.check(policy, _arrays(opened, GOLDEN, golden.declared(manifest, policy), manifest))
    policy.folder = folder
    return policy


def read_manifest(folder: Path) -> Manifest:
    """What the manifest says; PolicyError if it is missing or damaged. The other files are not looked at."""
    with Folder(folder) as opened:
        return parse(opened.read(MANIFEST, MAX_MANIFEST), folder / MANIFEST)


def _policy(opened: Folder, manifest: Manifest, deterministic: bool | None) -> NumpyPolicy:
    with _about(opened.path / MANIFEST):
        declared = declared_weights(manifest)
    with _about(opened.path / WEIGHTS):
        return NumpyPolicy(_arrays(opened, WEIGHTS, declared, manifest), manifest, deterministic)


def _arrays(opened: Folder, name: str, declared: arrays.Declared, manifest: Manifest) -> dict[str, NDArray[Any]]:
    if name not in manifest.files:
        raise PolicyError("the manifest does not declare it")
    data = opened.read(name, arrays.size_limit(declared))
    _require_same(opened.path / name, hashlib.sha256(data).hexdigest(), manifest)
    return arrays.unpack(data, declared)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Errors that do not name their file are about this one."""
    try:
        yield
    except PolicyError as error:
        named = str(error).startswith(str(path.parent))
        raise (error if named else PolicyError(f"{path}: {error}; {AGAIN}")) from None


def _require_same(path: Path, sha256: str, manifest: Manifest) -> None:
    if sha256 != manifest.files[path.name].sha256:
        raise PolicyError(f"{path}: damaged or exchanged (its SHA-256 is not the manifest's); {AGAIN}")


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(new: Path, folder: Path) -> None:
    """Rename; a folder that is not empty cannot be renamed over, so the old one steps aside first."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(old / folder.name)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        new.rename(folder)
