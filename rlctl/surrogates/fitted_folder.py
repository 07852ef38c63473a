"""The folder of a fitted twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from rlctl.core.errors import ConfigError
from rlctl.surrogates.model_folder import Arrays, ModelFolder

DESCRIPTION, ARRAYS = "twin.json", "twin.npz"
_FORM = ModelFolder("twin", "twin", DESCRIPTION, ARRAYS, version=1)


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
    _FORM.write(folder, model.arrays(), {"kind": model.kind, "model": model.description(), "about": about})


def read_fitted(folder: Path, kind: str, make: Callable[[Mapping[str, Any], Arrays], M]) -> FittedFolder[M]:
    """Read a folder.

    Args:
        kind: of the model.
        make: makes it of its description and arrays.

    Raises:
        ConfigError: it is missing, damaged, of another version, or holds a model of another kind.
    """

    def fitted(data: Mapping[str, Any], arrays: Arrays, digest: str) -> FittedFolder[M]:
        if data.get("kind") != kind:
            raise ConfigError(
                f"{folder} is a twin of {data.get('kind')}, and {kind} are asked for: make it again with rlctl twin"
            )
        return FittedFolder(make(data["model"], arrays), data["about"])

    return _FORM.read(folder, fitted)
