"""Saved policies: a folder of plain arrays and a manifest, read back and used with NumPy alone.

A login node or a controller of a real campaign needs no deep-learning library to use a trained network: loading is
instant, a decision takes microseconds, and nothing in the folder can run code (no pickle).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.campaign import Decision
from rlctl.errors import PolicyError

SCHEMA = 1
WEIGHTS, MANIFEST = "weights.npz", "manifest.json"

Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def save(
    folder: Path, weights: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any], files: Sequence[Path] = ()
) -> None:
    """Write a saved policy; the folder appears whole or not at all, and replaces an older one.

    Args:
        weights: ``"0.weight"`` (outputs, inputs), ``"0.bias"``, ``"1.weight"`` ... of the actor, first layer first; the
            last layer gives the logits of all heads.
        manifest: JSON-ready. Needed: ``campaign`` (``{"name", "version"}``), ``action_heads`` (choices of each head),
            ``observation_length``, ``deterministic``. Known: ``name``, ``observation_clip``, ``residual``
            (``{"rule", "parameters"}``: actions are relative to the rule's proposal). All else is kept for people.
        files: further files that are copied into the folder.

    Raises:
        PolicyError: weights and manifest do not fit each other.
    """
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(w, dtype=np.float32) for name, w in weights.items()}
        np.savez(buffer, **arrays)
        _write(temporary / WEIGHTS, buffer.getvalue())
        full = {"activation": "tanh", **manifest, "schema": SCHEMA}
        full["weights"] = {
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "shapes": {name: list(np.shape(w)) for name, w in weights.items()},
        }
        _write(temporary / MANIFEST, json.dumps(full, indent=2, sort_keys=True).encode() + b"\n")
        for file in files:
            shutil.copyfile(file, temporary / file.name)
        load(temporary)
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Path, deterministic: bool | None = None) -> NumpyPolicy:
    """Read a saved policy and check that it is whole.

    Args:
        deterministic: overrides the manifest.

    Raises:
        PolicyError: it is missing, damaged or of an unknown schema.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except OSError as error:
        raise PolicyError(f"{folder}: no saved policy here ({MANIFEST}: {error.strerror})") from None
    except ValueError as error:
        raise PolicyError(f"{folder / MANIFEST}: damaged ({error}); save the policy again") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise PolicyError(f"{folder / MANIFEST}: schema {found!r}, but this rlctl reads schema {SCHEMA}")
    try:
        data = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["weights"]["sha256"]:
            raise PolicyError(f"{folder / WEIGHTS}: damaged (its SHA-256 is not the manifest's); save the policy again")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            weights = {name: archive[name] for name in archive.files}
        return NumpyPolicy(weights, manifest, deterministic=deterministic, fallback_name=folder.name)
    except OSError as error:
        raise PolicyError(f"{folder / WEIGHTS}: cannot be read ({error.strerror}); save the policy again") from None
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise PolicyError(f"{folder}: weights and manifest do not fit ({error!r}); save the policy again") from None


def action_heads(space: spaces.MultiDiscrete | spaces.Discrete) -> tuple[int, ...]:
    """Number of choices of each head of an action space.

    >>> action_heads(spaces.MultiDiscrete([3, 2])), action_heads(spaces.Discrete(5))
    ((3, 2), (5,))
    """
    return (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(int(n) for n in space.nvec)


class NumpyPolicy:
    """A tanh network with one masked categorical head per quantity.

    Attributes:
        manifest: what was saved with it.
        heads: number of choices of each head.
        deterministic: the likeliest choice of each head, or a random one.
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]],
        manifest: Mapping[str, Any],
        deterministic: bool | None = None,
        fallback_name: str = "policy",
    ) -> None:
        """Check that everything fits.

        Raises:
            PolicyError: shapes, heads or activation are not what this class computes.
        """
        self.manifest = manifest
        self.name = str(manifest.get("name", fallback_name))
        self.heads = tuple(int(n) for n in manifest["action_heads"])
        self.observation_length = int(manifest["observation_length"])
        self.deterministic = bool(manifest["deterministic"]) if deterministic is None else deterministic
        clip = manifest.get("observation_clip")
        self._clip = None if clip is None else float(clip)
        if manifest["activation"] != "tanh":
            raise PolicyError(f"policy {self.name}: activation {manifest['activation']!r}; only 'tanh' is known")
        if not {"name", "version"} <= set(manifest["campaign"]):
            raise PolicyError(f"policy {self.name}: the manifest does not name its campaign and version")
        declared = {name: tuple(shape) for name, shape in manifest["weights"]["shapes"].items()}
        if declared != {name: w.shape for name, w in weights.items()}:
            raise PolicyError(f"policy {self.name}: the weights do not have the shapes that the manifest says")
        self._layers = self._chain(weights)
        self._starts = [int(n) for n in np.cumsum((0, *self.heads))]
        self._slices = [slice(a, b) for a, b in zip(self._starts[:-1], self._starts[1:], strict=True)]
        self._random = np.random.default_rng(0)

    def require(self, campaign: str, version: int, observation_length: int, heads: Sequence[int]) -> None:
        """Check that this policy was made for a campaign.

        Raises:
            PolicyError: it was made for another campaign, or for another version or shape of it.
        """
        made_for = self.manifest["campaign"]
        if (made_for["name"], made_for["version"]) != (campaign, version):
            raise PolicyError(
                f"policy {self.name} was trained for {made_for['name']} version {made_for['version']}, "
                f"but the campaign is {campaign} version {version}: train it for this campaign"
            )
        if (self.observation_length, self.heads) != (observation_length, tuple(int(n) for n in heads)):
            raise PolicyError(
                f"policy {self.name} reads {self.observation_length} numbers and has heads {list(self.heads)}, but the "
                f"campaign gives {observation_length} and has heads {list(heads)}: "
                "use the campaign options it was trained with"
            )

    def logits(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of all heads, before the mask; one observation or rows of them."""
        x = np.asarray(observation, dtype=np.float32)
        if self._clip is not None:
            x = np.clip(x, -self._clip, self._clip)
        for weight, bias in self._layers[:-1]:
            x = np.tanh(x @ weight + bias)
        weight, bias = self._layers[-1]
        result: NDArray[np.float32] = x @ weight + bias
        return result

    def act(self, decision: Decision) -> NDArray[np.int64]:
        """An allowed index for each head; the first of a head that allows nothing."""
        logits = self.logits(decision.observation)
        if not self.deterministic:
            # The largest of logits + Gumbel noise is a sample of their softmax.
            logits = logits + self._random.gumbel(size=logits.shape).astype(np.float32)
        logits[~decision.mask] = -np.inf
        return np.array([logits[head].argmax() for head in self._slices], dtype=np.int64)

    def reset(self, seed: int) -> None:
        """Start the randomness anew; there is no other memory."""
        self._random = np.random.default_rng(seed)

    def state(self) -> Mapping[str, Any]:
        """The state of the random generator."""
        return {"random": self._random.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._random.bit_generator.state = state["random"]

    def _chain(self, weights: Mapping[str, NDArray[Any]]) -> Layers:
        """The layers as (inputs, outputs) matrices, checked from the observation to the logits."""
        layers: Layers = []
        width = self.observation_length
        for i in range(len(weights) // 2):
            weight, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != (weight.shape[0],):
                raise PolicyError(f"policy {self.name}: layer {i} has shapes {weight.shape} and {bias.shape}")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise PolicyError(f"policy {self.name}: layer {i} has weights that are not finite")
            layers.append((np.ascontiguousarray(weight.T, dtype=np.float32), bias.astype(np.float32)))
            width = weight.shape[0]
        if not layers or width != sum(self.heads):
            raise PolicyError(f"policy {self.name}: {width} logits for heads {list(self.heads)}")
        return layers


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
