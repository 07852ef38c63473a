"""Serves TensorBoard for run folders, with the pages and limits that suit them."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rlctl.core.errors import ConfigError
from rlctl.system.interrupts import requested_by_signals

PORT = 6006
_RELOAD_S = 5
_FILES, _INSIDE = "*tfevents*", "tensorboard"
_PAGE = "custom_scalars&_smoothingWeight=0"
"""The custom scalars page; step curves are not smoothed."""
_SAMPLES = "scalars=5000,images=200,text=100,histograms=200"
"""Points shown per tag; TensorBoard's defaults are 10 images and 10 texts."""


def serve(folders: Sequence[Path], port: int | None = None, on_start: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C or SIGTERM; the port is free again once the process has ended.

    Args:
        folders: run folders, or folders that contain run folders.
        port: local port; None: the first free one from ``PORT`` on.
        on_start: receives the address once the server answers.
    """
    names = _names(folders)
    stop = threading.Event()
    with requested_by_signals(lambda number: stop.set()), tempfile.TemporaryDirectory(prefix="rlctl-board-") as root:
        _link(names, Path(root))
        on_start(f"{_launch(Path(root), port)}#{_PAGE}")
        while not stop.wait(_RELOAD_S):
            _link(names, Path(root))  # new runs


def _launch(root: Path, port: int | None) -> str:
    """Start the server in a thread that ends with this process; returns its address."""
    # TensorBoard reports on standard error that TensorFlow is missing; rlctl does not need it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorboard import program

    if logging.getLogger().level >= logging.WARNING:
        # It warns of repeated steps, which every resumed run has.
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = program.TensorBoard()
    arguments = ["", f"--logdir={root}", f"--reload_interval={_RELOAD_S}", f"--samples_per_plugin={_SAMPLES}"]
    # The reader runs in this process, since another process could outlive it.
    arguments += ["--load_fast=false", "--window_title=rlctl"]
    if port is not None:
        arguments.append(f"--port={port}")
    board.configure(arguments)
    try:
        return str(board.launch())
    except program.TensorBoardPortInUseError:
        raise ConfigError(
            f"port {port or PORT} is in use by another program: give another one with --port, or omit --port"
        ) from None
    except program.TensorBoardServerException as error:
        raise ConfigError(f"port {port or PORT}: {error}") from None


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """Display name of each folder: its name, with those of its parents where needed to make it unique."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; give a run folder, or a folder that contains run folders")
        if next(folder.rglob(_FILES), None) is None:
            raise ConfigError(
                f"{folder} contains no TensorBoard event files: give a run folder of rlctl train or steer"
            )
        whole = folder.resolve()
        parts, length = whole.parts[1:], 1
        while (name := "-".join(parts[-length:])) in found and length < len(parts):
            length += 1
        if whole not in found.values():
            found[name] = whole
    return found


def _link(names: Mapping[str, Path], root: Path) -> None:
    """Link the TensorBoard folder of each run below the folders as ``NAME-FOLDER-...-RUN``."""
    for name, folder in names.items():
        for file in folder.rglob(_FILES):
            inside = file.parent.relative_to(folder).parts
            length = inside.index(_INSIDE) if _INSIDE in inside else 0
            link = root / _file_name("-".join((name, *inside[:length])))
            if not link.is_symlink():
                link.symlink_to(folder.joinpath(*inside[: length + 1] if _INSIDE in inside else ()))


def _file_name(name: str) -> str:
    """A valid file name of at most 200 bytes."""
    encoded = name.encode("utf-8", "backslashreplace")
    if len(encoded) > 200:
        encoded = b"%s-%s" % (encoded[:180], hashlib.sha256(encoded).hexdigest()[:8].encode())
    return encoded.decode("utf-8", "ignore")
