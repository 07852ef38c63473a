"""A folder with a model: arrays in one file, all else in another, JSON, which names the arrays' hash."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError
from rlctl.core.json_values import plain
from rlctl.system.files import atomic_folder

Arrays = Mapping[str, NDArray[Any]]
M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The form of such folders.

    Attributes:
        what: that it holds, e.g. ``twin``; ``rlctl COMMAND`` makes it.
        description, arrays: names of its files.
        version: of their content.
    """

    what: str
    command: str
    description: str
    arrays: str
    version: int

    def write(self, folder: Path, arrays: Arrays, data: Mapping[str, Any]) -> None:
        """Write a new folder, as a whole or not at all."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        content = stream.getvalue()
        whole = {"format": self.version, "arrays_sha256": hashlib.sha256(content).hexdigest(), **data}
        with atomic_folder(folder, (self.arrays, self.description)) as new:
            (new / self.arrays).write_bytes(content)
            (new / self.description).write_text(json.dumps(plain(whole), indent=1) + "\n", encoding="utf-8")

    def read(self, folder: Path, make: Callable[[Mapping[str, Any], Arrays, str], M]) -> M:
        """Read a folder.

        Args:
            make: makes what is wanted of the description, the arrays, and the SHA-256 of all of it.

        Raises:
            ConfigError: it is missing, damaged, or of another version.
        """
        file, again = folder / self.description, f"make it again with rlctl {self.command}"
        if not file.is_file():
            missing = f"there is no {self.description} in it: make it with rlctl {self.command}"
            raise ConfigError(f"{folder} holds no {self.what}, {missing}")
        try:
            text = file.read_bytes()
            data = json.loads(text)
            found = data["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read ({error}): {again}") from None
        if found != self.version:
            raise ConfigError(f"{file} has format {found!r}, this rlctl reads {self.version}: {again}")
        try:
            content = (folder / self.arrays).read_bytes()
            if hashlib.sha256(content).hexdigest() != data["arrays_sha256"]:
                raise ConfigError(
                    f"{folder / self.arrays} is not the one that {self.description} was written with: {again}"
                )
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return make(data, dict(stored), hashlib.sha256(text).hexdigest())
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{folder} is damaged ({error!r}): {again}") from None
