"""The folder of a fitted twin: arrays in ``twin.npz``, all else in ``twin.json``, which names the arrays' hash."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError
from rlctl.core.json_values import plain
from rlctl.system.files import atomic_folder

FORMAT = 1
DESCRIPTION, ARRAYS = "twin.json", "twin.npz"
_AGAIN = "make it again with rlctl twin"


Arrays = Mapping[str, NDArray[Any]]


class FittedModel(Protocol):
    """A model of recorded evaluations.

    Attributes:
        kind: what it is a model of: ``evaluations`` or ``segments``.
    """

    kind: ClassVar[str]

    def description(self) -> dict[str, Any]:
        """All of it that is no array, for JSON."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The rest."""


M = TypeVar("M", bound=FittedModel)


@dataclass(frozen=True)
class FittedFolder(Generic[M]):
    """What a folder holds.

    Attributes:
        model: of the evaluations.
        about: sources, held-out error and versions.
    """

    model: M
    about: Mapping[str, Any]


def write_fitted(folder: Path, model: FittedModel, about: Mapping[str, Any]) -> None:
    """Write a new folder, as a whole or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **model.arrays())  # type: ignore[arg-type]
    arrays = stream.getvalue()
    data = {
        "format": FORMAT,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "kind": model.kind,
        "model": model.description(),
        "about": about,
    }
    with atomic_folder(folder, (ARRAYS, DESCRIPTION)) as new:
        (new / ARRAYS).write_bytes(arrays)
        (new / DESCRIPTION).write_text(json.dumps(plain(data), indent=1) + "\n", encoding="utf-8")


def read_fitted(folder: Path, kind: str, make: Callable[[Mapping[str, Any], Arrays], M]) -> FittedFolder[M]:
    """Read a folder.

    Args:
        kind: of the model.
        make: makes it of its description and arrays.

    Raises:
        ConfigError: it is missing, damaged, of another version, or holds a model of another kind.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ConfigError(f"{folder} holds no twin, there is no {DESCRIPTION} in it: make it with rlctl twin")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        found = data["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): {_AGAIN}") from None
    if found != FORMAT:
        raise ConfigError(f"{file} has format {found!r}, this rlctl reads {FORMAT}: {_AGAIN}")
    if data.get("kind") != kind:
        raise ConfigError(f"{folder} is a twin of {data.get('kind')}, and {kind} are asked for: {_AGAIN}")
    try:
        content = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != data["arrays_sha256"]:
            raise ConfigError(f"{folder / ARRAYS} is not the one that {DESCRIPTION} was written with: {_AGAIN}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return FittedFolder(make(data["model"], dict(arrays)), data["about"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{folder} is damaged ({error!r}): {_AGAIN}") from None
