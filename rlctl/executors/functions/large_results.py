"""Large results by reference: what a task returns goes through journal and campaign only where it is small.

A value of a result that is an array, or whose JSON is longer than ``INLINE_BYTES``, is written to a file in the working
folder, and a reference takes its place: ``{"file": ..., "bytes": ...}``, of arrays with ``shape`` and ``dtype``. It
stays with the run. ``fetch`` reads what a reference refers to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.core.spec_values import DEEPEST, is_json
from rlctl.executors.naming import file_name

INLINE_BYTES = 65_536
MAPPED_BYTES = 1 << 26
"""Arrays from here on are read when they are looked at; each holds a file handle meanwhile, others do not."""

RESULTS = "results"


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object that a program or a function has written.

    Python reads more than JSON has, and numbers that fit into no float; a campaign could do nothing with them.
    Where a key comes twice the last one counts.

    Raises:
        ValueError: it is something else, or nested deeper than ``DEEPEST`` levels.
    """
    try:
        values = json.loads(data, parse_constant=_refused, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    if not isinstance(values, dict):
        raise ValueError("not a mapping")
    if data.count(b"[") + data.count(b"{") > DEEPEST and not is_json(values):
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    return values


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON knows")


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) == math.inf:
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > 300:
        raise ValueError(f"{text[:40]}... is too large a number")
    return int(text)


def by_reference(values: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Values with references in place of what is large.

    Args:
        folder: working folder of the task.
        name: of the attempt; the folder of its files is called after it.

    Raises:
        TypeError, ValueError: a value is neither an array nor JSON.
        OSError: a file cannot be written.
    """
    small: dict[str, Any] = {}
    results = RESULTS if not (folder / RESULTS).is_file() else f"{RESULTS}.large"  # a program's own file has that name
    for key, value in values.items():
        path = Path(results) / file_name(name) / file_name(key)
        if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
            small[key] = _keep_array(value, folder, path.with_name(f"{path.name}.npy"))
            continue
        text = json.dumps(value, allow_nan=False)
        if len(text) <= INLINE_BYTES:
            small[key] = value
            continue
        path = path.with_name(f"{path.name}.json")
        _write(folder / path, text.encode())
        small[key] = {"file": str(path), "bytes": len(text)}
    return small


def fetch(value: Any, folder: Path) -> Any:
    """Read what a reference refers to, an array or JSON; any other value is returned as it is.

    Args:
        folder: working folder of the task, in a run ``RUN/work``.

    Raises:
        OSError, ValueError: its file is not there, or damaged.
    """
    if not isinstance(value, Mapping) or not {"file", "bytes"} <= value.keys():
        return value
    path = folder / value["file"]
    if path.suffix == ".npy":
        import numpy as np

        if value["bytes"] >= MAPPED_BYTES:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        array = np.load(path, allow_pickle=False)
        array.flags.writeable = False  # as those that are mapped
        return array
    return json.loads(path.read_text())


def _write(path: Path, content: Any) -> None:
    """Write bytes or an array; what is half written goes, since it takes the room of what comes later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                import numpy as np

                np.save(file, content, allow_pickle=False)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _keep_array(array: Any, folder: Path, path: Path) -> Any:
    import numpy as np

    if np.ndim(array) == 0:
        return array.item()
    _write(folder / path, array)
    return {"file": str(path), "bytes": int(array.nbytes), "shape": list(array.shape), "dtype": str(array.dtype)}
