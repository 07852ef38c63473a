"""Films as a picture: the restart files of a run folder, side by side."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.records import Record
from rlctl.core.task import TaskState
from rlctl_envs.block_copolymer.material import BOX


def last_segments(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """By film, the result of its last measured segment and how many there were, as the journal has them."""
    films: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.kind == "event" and record.data["state"] == TaskState.DONE:
            name = record.data["uid"].split("-")[0]
            count = films.get(name, {"segments": 0})["segments"] + 1
            films[name] = {**record.data["result"]["values"], "segments": count}
    return films


def read_field(path: Path) -> NDArray[np.float64]:
    """The field of a restart file."""
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file[file.files[0]], np.float64)


def films_png(work: Path, records: Sequence[Record], out: Path | IO[bytes], most: int = 8) -> int:
    """Draw the newest restart files of at most ``most`` films, good ones first.

    Args:
        work: the run's folder of task files.
        out: the PNG file; not written if there are no films.

    Returns:
        the number of films drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    films = last_segments(records)
    fields: dict[str, NDArray[np.float64]] = {}
    for name in sorted(films, key=lambda n: (not films[n]["good"], n)):
        if len(fields) < most and (found := _newest(work, name)) is not None:
            fields[name] = found
    if not fields:
        return 0
    columns = min(len(fields), 4)
    rows = -(-len(fields) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 4.4 * rows), squeeze=False, dpi=110)
    for place in axes.flat:
        place.axis("off")
    for place, (name, field) in zip(axes.flat, fields.items(), strict=False):
        seen = films[name]
        reach = max(abs(field).max(), 0.05)
        place.imshow(field, cmap="RdBu_r", vmin=-reach, vmax=reach, extent=(0, BOX, 0, BOX), interpolation="bilinear")
        verdict = "good" if seen["good"] else "not good"
        # Large, since TensorBoard shows the whole picture small.
        place.set_title(f"{name}\n{verdict}, Q {seen['q']:.2f}\n{seen['segments']} segments", fontsize=17)
    figure.tight_layout(h_pad=2.0)
    figure.savefig(out, format="png")
    pyplot.close(figure)
    return len(fields)


def _newest(work: Path, name: str) -> NDArray[np.float64] | None:
    """The newest whole one: a program that runs, or was killed, may have left one of its two files in pieces."""
    paths = sorted(work.glob(f"{name}.[01].npz"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for path in paths:
        try:
            return read_field(path)
        except (OSError, ValueError, zipfile.BadZipFile):
            continue
    return None
