"""The film over MPI ranks is that of a real field, whichever ranks hold the columns kx = 0 and kx = G/2."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mpi_runner import run_ranks

FILMS = """
import json, sys
import numpy as np
from mpi4py import MPI
from rlctl_envs.block_copolymer import field
from rlctl_envs.block_copolymer.material import T_MIN, Material
from rlctl_envs.block_copolymer.slab import Slab

grid, films, steps = map(int, sys.argv[1:])
comm = MPI.COMM_WORLD
slab = Slab(comm, grid)
told = []
for seed in range(films):
    noise, _, start = field.generators(seed)
    # The last film is the deepest there is.
    material = Material.draw(seed) if seed < films - 1 else Material(1.9, 1.5, 0.35, 2.5, 0.01, 0.0, 1.0)
    c_hat = field.initial(material, grid, start)
    c_hat[1:3, 0] += 0.1j  # belongs to no real field
    c_hat[-2:, -1] += 0.1j
    c_hat = slab.gather(slab.advance(slab.scatter(c_hat), material, T_MIN, steps, noise))
    file = field.to_spectrum(field.to_field(c_hat))
    told.append([[*field.features(field.power(c)), *field.structure_factor(c)] for c in (c_hat, file)])
if comm.rank == 0:
    print(json.dumps(told))
"""


@pytest.mark.parametrize(("ranks", "grid", "films", "steps"), [(1, 64, 12, 320), (2, 64, 12, 320), (3, 50, 4, 320)])
def test_a_film_in_memory_measures_what_its_restart_file_does(ranks: int, grid: int, films: int, steps: int) -> None:
    done = run_ranks(FILMS, ranks, [str(grid), str(films), str(steps)])
    assert done.returncode == 0, done.stderr
    memory, file = np.array(json.loads(done.stdout)).transpose(1, 0, 2)
    assert memory == pytest.approx(file, abs=1e-12)
    assert memory.shape == (films, 8 + 15)
    assert memory[:, 1].min() > 1e-3
