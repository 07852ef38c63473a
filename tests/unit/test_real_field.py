"""The half spectrum is that of a real field after every step, in deep wells too, and films go as the twin's do.

What a spectrum holds beside a real field is dropped on the way to the field, so nothing answers it: a solver that lets
it be amplifies rounding errors without end, and measures them. ``RLCTL_PHYSICS=full`` takes two minutes, for many more
steps and all corners of the box of materials; ``make test`` takes a share.
"""

from __future__ import annotations

import itertools
import math

import forms
import numpy as np
import pytest
from film_energy import free_energy

from rlctl_envs.block_copolymer.campaign import CHANGES, STARTS
from rlctl_envs.block_copolymer.field import (
    A_GOOD,
    Q_GOOD,
    advance,
    features,
    generators,
    initial,
    mirrored,
    power,
    structure_factor,
    to_field,
    to_spectrum,
)
from rlctl_envs.block_copolymer.film_env import FilmEnv
from rlctl_envs.block_copolymer.lanes import GRID, HALF
from rlctl_envs.block_copolymer.material import T_MIN, Material
from rlctl_envs.block_copolymer.slab import Slab, share
from rlctl_envs.block_copolymer.twin import advance_films, factors

FULL = forms.full("PHYSICS")
BOX = {
    "t_odt": (1.2, 1.9),
    "activation": (1.5, 4.5),
    "steepness": (1.0, 2.5),
    "gamma": (0.25 * math.exp(-0.35), 0.25 * math.exp(0.35)),
    "noise": (0.01, 0.06),
    "mean": (0.0, 0.12),
}
"""Ends of what ``Material.draw`` draws; the contrast is the instrument's."""
DEEPEST = Material(1.9, 1.5, BOX["gamma"][1], 2.5, 0.01, 0.0, 1.0)


class Alone:
    """A communicator of one rank, without MPI."""

    rank, size = 0, 1

    def Alltoallv(self, sent, received):
        received[0].ravel()[:] = sent[0].ravel()


def serial(c_hat, *segment):
    return advance(c_hat, *segment)


def slab(c_hat, *segment):
    part = Slab(Alone(), c_hat.shape[0])
    return part.advance(part.scatter(c_hat), *segment)


@pytest.fixture(params=[serial, slab])
def solve(request, monkeypatch):
    monkeypatch.setattr("rlctl_envs.block_copolymer.slab._complex", lambda: None)
    return request.param


def fresh(material, grid, seed=0):
    return initial(material, grid, generators(seed)[2])


def foreign(c_hat):
    """The largest mode of what belongs to no real field."""
    return np.abs(c_hat - to_spectrum(to_field(c_hat))).max()


@pytest.mark.parametrize("grid", [32, 64])
def test_a_film_in_memory_measures_what_its_restart_file_does(solve, grid):
    for seed in range(64 if FULL else 8):
        material, (noise, _, start) = Material.draw(seed), generators(seed)
        film = solve(initial(material, grid, start), material, T_MIN, 320, noise)
        file = to_spectrum(to_field(film))
        assert features(power(film)) == pytest.approx(features(power(file)), abs=1e-12)
        assert structure_factor(film) == pytest.approx(structure_factor(file), abs=1e-12)


@pytest.mark.parametrize(("grid", "steps"), [(32, 5000), (64, 100_000), (50, 5000), (512, 2000)])
def test_nothing_but_the_real_field_is_there_after_any_number_of_steps(solve, grid, steps):
    if not FULL:
        steps = min(steps, 2000 if grid < 100 else 60)
    film = solve(fresh(DEEPEST, grid), DEEPEST, T_MIN, steps, generators(0)[0])
    assert foreign(film) < 1e-14
    assert np.std(to_field(film)) > 0.3


@pytest.mark.parametrize("column", [0, -1])
def test_what_belongs_to_no_real_field_is_gone_after_one_step_and_changes_nothing(solve, column):
    clean = to_spectrum(np.random.default_rng(0).normal(size=(48, 48)))
    soiled = clean.copy()
    rng = np.random.default_rng(1)
    noise = rng.normal(size=48) + 1j * rng.normal(size=48)
    soiled[:, column] += noise - np.roll(noise[::-1], 1).conj()  # the four modes that are real get imaginary parts
    assert np.abs(soiled - clean)[[0, 24], column].min() > 0.1
    assert np.abs(to_field(soiled) - to_field(clean)).max() < 1e-14
    ends = [solve(start, DEEPEST, T_MIN, 1, generators(0)[0]) for start in (clean, soiled)]
    assert foreign(ends[1]) < 1e-15
    assert np.abs(ends[1] - ends[0]).max() < 1e-15


@pytest.mark.parametrize("ranks", range(1, 20))
def test_the_columns_that_hold_modes_with_their_conjugates_are_found_on_every_rank(ranks):
    half = 16
    numbers = np.tile(np.arange(half + 1), (2 * half, 1))
    found = [mirrored(numbers[:, a:b], a)[0].tolist() for a, b in itertools.pairwise(share(half + 1, ranks))]
    assert list(itertools.chain(*found)) == [0, half]


@pytest.mark.parametrize("grid", [64, *([512] if FULL else [])])
@pytest.mark.parametrize("mean", BOX["mean"])
def test_free_energy_of_the_coldest_and_deepest_film_never_rises_without_noise(solve, grid, mean):
    material = Material(1.9, 1.5, BOX["gamma"][1], 2.5, 0.01, mean, 1.0)
    film = fresh(material, grid)
    before = first = free_energy(film, material, T_MIN)
    for _ in range(400):
        film = solve(film, material, T_MIN, 1, None, False)
        after = free_energy(film, material, T_MIN)
        assert after <= before + 1e-14
        before = after
    assert before < first - 0.5


def energy_test(one, other, rng, permutations=4999):
    """p-value of two samples having one distribution: a permutation test, exact whatever the distribution.

    The statistic is the energy distance (Szekely and Rizzo 2004) of the quantities' ranks, summed over strata, within
    which samples are exchanged.

    Args:
        one, other: [stratum, sample, quantity].
    """
    both = np.concatenate([one, other], axis=1)
    ranks = both.argsort(axis=1).argsort(axis=1).astype(float)
    count = one.shape[1]
    signs = np.repeat([1.0, -1.0], count)
    statistic = np.zeros(permutations + 1)
    for stratum in ranks:
        apart = np.sqrt(((stratum[:, None] - stratum[None]) ** 2).sum(axis=-1))
        labels = np.vstack([signs, rng.permuted(np.tile(signs, (permutations, 1)), axis=1)])
        statistic -= np.einsum("pi,ij,pj->p", labels, apart, labels, optimize=True)
    return float(np.mean(statistic >= statistic[0]))


def corners():
    """All 64 corners of the box of materials, or an eighth of them: each quantity at either end in four of eight."""
    for ends in itertools.product((0, 1), repeat=6):
        a, b, c, *others = ends
        if FULL or others == [a ^ b, a ^ c, b ^ c]:
            values = {name: BOX[name][end] for name, end in zip(BOX, ends, strict=True)}
            yield Material(**values, contrast=1.0)


def test_program_and_twin_agree_in_distribution_at_the_corners_of_the_box():
    """At the lowest temperature, where wells are deepest; the program as it measures, in memory. Errs once in 1000."""
    steps, count = 160, 32 if FULL else 20
    program, twin = [], []
    for number, material in enumerate(corners()):
        first = 1000 * number
        films = [
            advance(fresh(material, GRID, first + i), material, T_MIN, steps, generators(first + i)[0])
            for i in range(count)
        ]
        program.append(np.array([features(power(film)) for film in films]))
        starts = [to_field(fresh(material, GRID, first + 500 + i)).astype(np.float32) for i in range(count)]
        seeds = range(first, first + count)
        ends = advance_films(np.stack(starts), [material] * count, [T_MIN] * count, [steps] * count, list(seeds))
        twin.append(np.array([features(power(to_spectrum(end.astype(float)))) for end in ends]))
    assert len(program) == (64 if FULL else 8)
    p_value = energy_test(np.array(program), np.array(twin), np.random.default_rng(0))
    print(f"program against twin: p = {p_value:.4f}")
    assert p_value > 1e-3


def test_two_samples_are_told_apart_as_often_as_they_should_be():
    """Of one distribution: p-values are even. A shift of a deviation in one quantity of eight is found."""
    rng = np.random.default_rng(0)
    p_values = [energy_test(*rng.normal(size=(2, 2, 10, 8)), rng, permutations=99) for _ in range(200)]
    assert 0.05 <= np.mean(np.array(p_values) <= 0.1) <= 0.16
    one, other = rng.normal(size=(2, 8, 20, 8))
    other[..., 2] += 1.0
    assert energy_test(one, other, rng) < 1e-3


def test_on_the_twins_grid_no_mode_without_a_sign_grows_at_any_corner():
    """The twin's kernel keeps kx = 0 real, and leaves kx = G/2 and ky = G/2 to decay: see ``lanes``."""
    for material in corners():
        gain = factors([material], [T_MIN])[0][:, :, 0]
        assert gain[HALF - 1].max() < 1.0
        assert gain[:, GRID // 2].max() < 1.0


def test_a_film_that_is_held_cold_is_good_only_if_its_restart_file_is():
    """ "To 1.2, then hold": films in deep wells freeze with their defects, few become good."""
    hold, good, films = CHANGES.index(0.0), 0, 40 if FULL else 8
    env = FilmEnv(grid=64, segments=6)
    for seed in range(films):
        env.reset(seed=seed)
        action, over = STARTS.index(1.2), False
        while not over:
            _, _, terminated, truncated, info = env.step(action)
            q, rms = features(power(to_spectrum(to_field(env._c_hat))))[:2]
            assert info == pytest.approx(
                {"diverged": False, "good": q >= Q_GOOD and rms >= A_GOOD, "q": q, "temperature": 1.2}, abs=0.05
            )
            action, over = hold, terminated or truncated
        good += info["good"]
    assert good <= films / 4
