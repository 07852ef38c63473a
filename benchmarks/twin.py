"""How fast the twin is: film-decisions per second, batched against one film at a time with the program's solver.

A film-decision is 80 time steps of one film on the 32 x 32 grid. ``python benchmarks/twin.py [--quick] [--json FILE]``
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import numpy as np
from rows import machine, parser, report, row

from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl_envs.block_copolymer import field as solver
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.material import Material
from rlctl_envs.block_copolymer.twin import advance_films

STEPS = 80
TARGET = 5000.0


def program(count: int) -> None:
    """The solver of the real program, film by film, double precision."""
    for i in range(count):
        rng = np.random.default_rng(i)
        solver.advance(solver.initial(Material.draw(i), 32, rng), Material.draw(i), 1.4, STEPS, rng)


def twin(count: int) -> None:
    """The batched solver."""
    materials = [Material.draw(i) for i in range(count)]
    fields = np.zeros((count, 32, 32), np.float32)
    advance_films(fields, materials, [1.4] * count, [STEPS] * count, list(range(count)))


def campaigns(count: int) -> Callable[[], int]:
    """Whole campaigns: decisions, executor, measurement and all; segments of 80 steps, random temperatures."""
    factory = BlockCopolymer({"allocation_s": 1e6, "films": 64, "amplitude_good": 9.0, "steps": [STEPS]})
    env = CampaignVectorEnv(factory, count, 0, factory.capacity)
    env.reset()
    rng = np.random.default_rng(0)

    def run() -> int:
        steps = max(1, 256 // count)
        for _ in range(steps):
            actions = np.stack([rng.integers(n, size=count) for n in env.single_action_space.nvec], axis=1)
            actions[:, 2:] = 0
            env.step(actions)
        return steps * count

    return run


def main() -> None:
    """Measure, interleaved, and print medians with the range."""
    arguments = parser(__doc__).parse_args()
    repeats = 3 if arguments.quick else 7
    numba.set_num_threads(1)
    twin(16)

    def solve(count: int) -> Callable[[], int]:
        def run() -> int:
            twin(count)
            return count

        return run

    def one_film() -> int:
        program(16)
        return 16

    systems: list[tuple[str, Callable[[], int]]] = [("program's solver, one film", one_film)]
    systems += [(f"twin's solver, B = {b}", solve(b)) for b in (1, 64, 512)]
    systems += [(f"whole campaigns, B = {b}", campaigns(b)) for b in (1, 64, 512)]
    rates: dict[str, list[float]] = {name: [] for name, _ in systems}
    for _, run in systems:
        run()
    for _ in range(repeats):
        for name, run in systems:
            begin = time.process_time()
            done = run()
            rates[name].append(done / (time.process_time() - begin))
    rows = []
    for name, values in rates.items():
        target = TARGET if name == "twin's solver, B = 512" else None
        rows.append(row("film-decisions per CPU-second", name, values, "1/s", target, least=True))
    report(f"one thread; {machine(('numba', 'numpy'))}", rows, arguments.json)


if __name__ == "__main__":
    main()
