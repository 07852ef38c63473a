"""The folder of a fitted table: arrays in ``twin.npz``, all else in ``twin.json``, which names the arrays' hash."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlctl.core.errors import ConfigError
from rlctl.core.json_values import plain
from rlctl.surrogates.fitted_table import FittedTable
from rlctl.surrogates.table_inputs import TableInputs
from rlctl.system.files import atomic_folder

FORMAT = 1
DESCRIPTION, ARRAYS = "twin.json", "twin.npz"
_AGAIN = "make it again with rlctl twin"


@dataclass(frozen=True)
class FittedFolder:
    """What a folder holds.

    Attributes:
        table: the models.
        about: sources, held-out error and versions.
    """

    table: FittedTable
    about: Mapping[str, Any]


def write_fitted(folder: Path, table: FittedTable, about: Mapping[str, Any]) -> None:
    """Write a new folder, as a whole or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **table.arrays())  # type: ignore[arg-type]
    arrays = stream.getvalue()
    data = {
        "format": FORMAT,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "inputs": table.inputs.to_json(),
        "outcomes": list(table.outcomes),
        "about": about,
    }
    with atomic_folder(folder, (ARRAYS, DESCRIPTION)) as new:
        (new / ARRAYS).write_bytes(arrays)
        (new / DESCRIPTION).write_text(json.dumps(plain(data), indent=1) + "\n", encoding="utf-8")


def read_fitted(folder: Path) -> FittedFolder:
    """Read a folder.

    Raises:
        ConfigError: it is missing, damaged, or of another version.
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
    try:
        content = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != data["arrays_sha256"]:
            raise ConfigError(f"{folder / ARRAYS} is not the one that {DESCRIPTION} was written with: {_AGAIN}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            inputs = TableInputs.from_json(data["inputs"])
            table = FittedTable.from_arrays(inputs, data["outcomes"], dict(arrays))
        return FittedFolder(table, data["about"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{folder} is damaged ({error!r}): {_AGAIN}") from None
