"""Writes a file with MPI-IO in one of three patterns, checks it, and says how long the writing took.

Run it with ``mpiexec -n 2 python write_pattern.py strided --calls collective --hint cb_buffer_size=65536``.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

os.environ.setdefault("OMPI_MCA_io", "romio341")  # the hints are those of ROMIO, which Open MPI does not use by default

from mpi4py import MPI

FILE = Path("written.dat")
PIECES = {"contiguous": (2, 2 << 20), "strided": (4096, 512), "random": (4096, 128)}
"""Of each pattern: pieces of the file, a multiple of the number of ranks, and their bytes."""


def pieces_of(pattern: str, rank: int, ranks: int) -> np.ndarray:
    """Numbers of the pieces that a rank writes, rising."""
    count, _ = PIECES[pattern]
    if pattern == "contiguous":
        return np.arange(rank * count // ranks, (rank + 1) * count // ranks)
    if pattern == "strided":
        return np.arange(rank, count, ranks)
    return np.sort(np.random.default_rng(1).permutation(count)[rank::ranks])


def write_calls() -> int:
    """System calls of this process that write, so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("syscw"))


def write(comm: MPI.Comm, pattern: str, collective: bool, call_bytes: int, hints: dict[str, str]) -> tuple[float, int]:
    """Write the file; the seconds that the slowest rank wrote for, and all ranks' system calls in them.

    Args:
        collective: whether all ranks write together; otherwise each for itself.
        call_bytes: bytes of each MPI call.
        hints: for MPI-IO, by name.
    """
    _, size = PIECES[pattern]
    own = pieces_of(pattern, comm.rank, comm.size)
    data = (own[:, None] * (size // 4) + np.arange(size // 4)).astype(np.uint32).reshape(-1)
    info = MPI.Info.Create()
    for name, value in hints.items():
        info.Set(name, value)
    file = MPI.File.Open(comm, str(FILE), MPI.MODE_CREATE | MPI.MODE_RDWR, info)
    piece = MPI.UINT32_T.Create_contiguous(size // 4).Commit()
    view = piece.Create_indexed_block(1, own.tolist()).Commit()
    file.Set_view(0, MPI.UINT32_T, view, "native", info)
    put = file.Write_at_all if collective else file.Write_at
    comm.Barrier()
    calls, begin = write_calls(), perf_counter()
    for first in range(0, len(data), call_bytes // 4):
        put(first, data[first : first + call_bytes // 4])
    seconds, calls = perf_counter() - begin, write_calls() - calls
    file.Close()
    view.Free()
    piece.Free()
    info.Free()
    return comm.allreduce(seconds, MPI.MAX), comm.allreduce(calls)


def check_and_delete(comm: MPI.Comm, pattern: str) -> None:
    """Stop all ranks unless the file holds what was to be written."""
    if comm.rank == 0:
        count, size = PIECES[pattern]
        right = np.array_equal(np.fromfile(FILE, np.uint32), np.arange(count * size // 4, dtype=np.uint32))
        FILE.unlink()
        if not right:
            print("the file is wrong", flush=True)
            comm.Abort(3)
    comm.Barrier()


def record(comm: MPI.Comm, table: Path, repeats: int) -> None:
    """Print a table of repeated writes with each row of settings, in random order, from one start of the program."""
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) for _ in range(repeats)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if comm.rank == 0:
        writer.writerow(["pattern", "setting", "seconds", "write_calls", "duration_s"])
    for place in np.random.default_rng(2).permutation(len(rows)):
        row, begin = rows[place], perf_counter()
        hints = {name: value for name, value in row.items() if name.startswith(("romio_", "cb_", "ind_"))}
        seconds, calls = write(comm, row["pattern"], row["calls"] == "collective", int(row["call_kib"]) << 10, hints)
        check_and_delete(comm, row["pattern"])
        if comm.rank == 0:
            cells = [f"{seconds:.6f}", calls, f"{perf_counter() - begin:.6f}"]
            writer.writerow([row["pattern"], row["setting"], *cells])
            sys.stdout.flush()


def main() -> None:
    """Write once, or the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", choices=[*PIECES, "all"])
    parser.add_argument("--calls", choices=("independent", "collective"), default="independent")
    parser.add_argument("--call-kib", type=int, default=1024, help="KiB of each MPI call")
    parser.add_argument("--hint", action="append", default=[], metavar="NAME=VALUE", help="for MPI-IO")
    parser.add_argument("--table", type=Path, help="with the pattern all: settings, each of which is repeated")
    parser.add_argument("--repeats", type=int, default=24)
    asked, comm = parser.parse_args(), MPI.COMM_WORLD
    if (asked.pattern == "all") != (asked.table is not None):
        parser.error("all patterns are of a --table")
    if asked.table is not None:
        return record(comm, asked.table, asked.repeats)
    hints = dict(hint.split("=", 1) for hint in asked.hint)
    seconds, calls = write(comm, asked.pattern, asked.calls == "collective", asked.call_kib << 10, hints)
    check_and_delete(comm, asked.pattern)
    if comm.rank == 0:
        count, size = PIECES[asked.pattern]
        print(f"seconds {seconds:.6f}")
        print(f"bandwidth {count * size / seconds / 1e6:.1f} MB/s")
        print(f"write_calls {calls}")
    return None


if __name__ == "__main__":
    main()
