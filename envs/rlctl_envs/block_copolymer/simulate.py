"""The real program: anneal one film for a segment at one temperature.

    python -m rlctl_envs.block_copolymer.simulate --material m.json --temperature 1.4 --steps 80 --grid 256 --seed 7 \
        --restart-out film.npz --result result.json
    mpiexec -n 2 python -m rlctl_envs.block_copolymer.simulate ...

An ordinary simulation: restart file and parameters in; restart file and a small result out, each written whole or not
at all. It knows nothing of rlctl. Exit codes: 0 done, 1 cannot write, 2 wrong input, 3 the solution diverged.

For tests of executors, the variable RLCTL_SIMULATE_FAULT makes it misbehave: ``diverge``, ``hang``, ``die`` (by
SIGKILL) or ``garbage`` (a result that is no JSON, with exit code 0).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl_envs.simulation_program import ArgumentParser, InputError, run_program, write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlctl_envs.block_copolymer.material import Material

DIVERGED = 3
"""Exit code of a solution that is not finite or larger than ``LARGEST``."""
LARGEST = 10.0
FAULT = "RLCTL_SIMULATE_FAULT"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run_program("simulate", _parse, _run, argv)


def _run(options: argparse.Namespace, comm: Any) -> int:
    import numpy as np

    from rlctl_envs.block_copolymer import field as film
    from rlctl_envs.block_copolymer.slab import Slab

    rank, ranks = (comm.rank, comm.size) if comm is not None else (0, 1)
    noise_rng, measure_rng, initial_rng = film.generators(options.seed)
    if options.fault == "hang":
        signal.pause()
    if options.fault == "die" and rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    start_up_s, begin = _age_s(), time.perf_counter()

    def read() -> tuple[Material, NDArray[np.float64] | None]:
        material = _read_material(options.material)
        for path in (options.restart_out, options.result):
            if not path.absolute().parent.is_dir():
                raise InputError(f"no folder {path.absolute().parent} to write {path.name} into")
        return material, None if options.restart_in is None else _read_restart(options.restart_in, options.grid)

    material, start = _on_first(comm, read)
    c_hat = film.initial(material, options.grid, initial_rng) if start is None else film.to_spectrum(start)
    read_at = time.perf_counter()
    with np.errstate(all="ignore"):
        slab = Slab(comm, options.grid)
        part = slab.scatter(c_hat)
        part = slab.advance(part, material, options.temperature, options.steps, noise_rng, options.noise)
        c_hat = slab.gather(part)
        if options.fault == "diverge":
            c_hat[0, 1] = np.nan
        field = film.to_field(c_hat)
        # Written so that a NaN does not pass.
        healthy = bool(np.max(np.abs(field)) <= LARGEST)
    computed_at = time.perf_counter()
    if not healthy:
        if rank == 0:
            print(f"simulate: the solution diverged (|c| > {LARGEST:g} or not finite)", file=sys.stderr)
        return DIVERGED
    if rank > 0:
        return 0
    archive = io.BytesIO()
    np.savez(archive, field=field)
    write_whole(options.restart_out, archive.getvalue(), durable=True)
    written_at = time.perf_counter()
    result = film.measure(c_hat, material, measure_rng, options.q_good, options.amplitude_good) | {
        "temperature": options.temperature,
        "steps": options.steps,
        "grid": options.grid,
        "ranks": ranks,
        "structure_factor": film.structure_factor(c_hat),
        "seconds": {
            "start_up": start_up_s,
            "read": read_at - begin,
            "compute": computed_at - read_at,
            "write": written_at - computed_at,
            "total": start_up_s + time.perf_counter() - begin,
        },
    }
    text = '{"q": 0.9, "amplitude": \x00' if options.fault == "garbage" else json.dumps(result)
    write_whole(options.result, text.encode(), durable=True)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    from rlctl_envs.block_copolymer.field import A_GOOD, Q_GOOD
    from rlctl_envs.block_copolymer.material import T_MAX, T_MIN

    parser = ArgumentParser(prog="simulate", description="Anneal one film for a segment at one temperature.")
    parser.add_argument("--material", type=Path, required=True, help="JSON file of the material's parameters")
    parser.add_argument("--temperature", type=float, required=True, help=f"{T_MIN:g} to {T_MAX:g}")
    parser.add_argument("--steps", type=int, required=True, help="time steps of the segment")
    parser.add_argument("--grid", type=int, required=True, help="points along each side: even, 32 to 512")
    parser.add_argument("--seed", type=int, required=True, help="of initial film, noise and measurement")
    parser.add_argument("--restart-in", type=Path, help="film to go on with; without it a fresh one is made")
    parser.add_argument("--restart-out", type=Path, required=True, help="where the film goes, .npz")
    parser.add_argument("--result", type=Path, required=True, help="where the measurement goes, .json")
    parser.add_argument("--no-noise", dest="noise", action="store_false", help="switch the thermal noise off")
    parser.add_argument("--q-good", type=float, default=Q_GOOD, help="order parameter of a good film")
    parser.add_argument("--amplitude-good", type=float, default=A_GOOD, help="true amplitude of a good film")
    options = parser.parse_args(argv)
    if not T_MIN <= options.temperature <= T_MAX:
        raise InputError(f"--temperature must be from {T_MIN:g} to {T_MAX:g}, got {options.temperature}")
    if options.steps < 1:
        raise InputError(f"--steps must be at least 1, got {options.steps}")
    if options.grid % 2 or not 32 <= options.grid <= 512:
        raise InputError(f"--grid must be even and from 32 to 512, got {options.grid}")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, got {options.seed}")
    options.fault = os.environ.get(FAULT, "")
    if options.fault not in ("", "diverge", "hang", "die", "garbage"):
        raise InputError(f"{FAULT} must be diverge, hang, die or garbage, got {options.fault!r}")
    return options


def _read_material(path: Path) -> Material:
    from rlctl_envs.block_copolymer.material import Material

    try:
        return Material.from_json(json.loads(path.read_text()))
    except OSError as error:
        raise InputError(f"cannot read the material {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"cannot use the material {path}: {error}") from None


def _read_restart(path: Path, grid: int) -> NDArray[np.float64]:
    import zipfile

    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            field = archive["field"]
    except OSError as error:
        raise InputError(f"cannot read the restart file {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, EOFError, AttributeError, TypeError, IndexError, zipfile.BadZipFile):
        raise InputError(f"{path} is no restart file of this program") from None
    if field.dtype != np.float64 or field.ndim != 2 or not np.all(np.isfinite(field)):
        raise InputError(f"{path} is no restart file of this program")
    if field.shape != (grid, grid):
        raise InputError(f"{path} holds a grid of {field.shape[0]} x {field.shape[1]}, --grid says {grid}")
    return np.asarray(field, dtype=np.float64)


def _on_first(comm: Any, read: Callable[[], Any]) -> Any:
    """What ``read`` returns or raises on the first rank, on every rank."""
    if comm is None:
        return read()
    value: Any = None
    if comm.rank == 0:
        try:
            value = read()
        except InputError as error:
            value = error
    value = comm.bcast(value)
    if isinstance(value, InputError):
        raise value
    return value


def _age_s() -> float:
    """Seconds since this process was created (Linux: to 10 ms)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        import psutil

        return max(0.0, time.time() - float(psutil.Process().create_time()))


if __name__ == "__main__":
    sys.exit(main())
