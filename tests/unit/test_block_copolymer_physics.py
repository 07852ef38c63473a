"""The film's equation: what must hold whatever the grid and the solver."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from film_energy import free_energy

from rlctl_envs.block_copolymer.field import (
    A_GOOD,
    BAND_EDGES,
    Q_GOOD,
    READINGS,
    advance,
    embed,
    features,
    generators,
    initial,
    measure,
    power,
    readings,
    structure_factor,
    to_field,
    to_spectrum,
    wavenumbers,
)
from rlctl_envs.block_copolymer.material import BOX, T_MAX, T_MIN, Material

UNIT = 2.0 * math.pi / BOX


def fresh(material, grid=32, seed=0):
    return initial(material, grid, generators(seed)[2])


def stripes(n_x, n_y, amplitude=1.0, grid=32, mean=0.0):
    x = np.arange(grid) / grid
    phase = 2.0 * np.pi * (n_x * x[None, :] + n_y * x[:, None])
    return to_spectrum(mean + amplitude * np.cos(phase))


@pytest.mark.parametrize("noise", [False, True])
def test_mass_is_conserved_to_round_off(noise):
    material = Material.draw(1)
    end = advance(fresh(material, 64), material, T_MIN, 300, generators(1)[0], noise)
    assert np.std(to_field(end)) > 0.1
    assert np.mean(to_field(end)) == pytest.approx(material.mean, abs=1e-14)


@pytest.mark.parametrize("temperature", [T_MIN, 1.3, T_MAX])
@pytest.mark.parametrize("seed", range(8))
def test_free_energy_never_rises_at_constant_temperature_without_noise(seed, temperature):
    material = Material.draw(seed)
    c_hat = fresh(material, seed=seed)
    before = first = free_energy(c_hat, material, temperature)
    for _ in range(150):
        c_hat = advance(c_hat, material, temperature, 1, None, noise=False)
        after = free_energy(c_hat, material, temperature)
        assert after <= before + 1e-14
        before = after
    assert before < first


def test_free_energy_is_the_one_whose_gradient_drives_the_film():
    """dF/dt = -M sum |k|^2 |mu_k|^2 to first order in a small time step."""
    material, temperature, dt = Material.draw(4), 1.2, 1e-4
    c_hat = advance(fresh(material, 64), material, temperature, 150, None, noise=False)
    ky, kx = wavenumbers(64)
    k2 = ky[:, None] ** 2 + kx[None, :] ** 2
    c3 = to_spectrum(to_field(c_hat) ** 3)
    long_range = np.divide(material.gamma, k2, out=np.zeros_like(k2), where=k2 > 0.0)
    mu = (-material.tau(temperature) + k2 + long_range) * c_hat + c3
    weight = np.where((kx > 0.0) & (kx < kx[-1]), 2.0, 1.0)
    expected = -material.mobility(temperature) * np.sum(weight * k2 * np.abs(mu) ** 2)
    after = advance(c_hat, material, temperature, 1, None, noise=False, dt=dt)
    slope = (free_energy(after, material, temperature) - free_energy(c_hat, material, temperature)) / dt
    assert slope == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_fastest_growing_wavenumber_matches_linear_stability_within_one_bin(seed):
    material, temperature = dataclasses.replace(Material.draw(seed), mean=0.0), 1.1
    start = 1e-6 * fresh(material, seed=seed)
    end = advance(start, material, temperature, 10, None, noise=False)
    growth = np.array(structure_factor(end)) / structure_factor(start)
    # Growth rate M (tau k^2 - k^4 - gamma), largest at k^2 = tau / 2.
    assert abs((1 + np.argmax(growth)) - math.sqrt(material.tau(temperature) / 2.0) / UNIT) <= 1.0


def test_every_mode_grows_at_the_rate_of_linear_stability():
    material, temperature, dt = dataclasses.replace(Material.draw(0), mean=0.0), 1.1, 1e-3
    start = 1e-6 * fresh(material)
    end = advance(start, material, temperature, 100, None, noise=False, dt=dt)
    ky, kx = wavenumbers(32)
    k2 = (ky[:, None] ** 2 + kx[None, :] ** 2)[1:8, 1:8]
    growth = (np.log(np.abs(end)[1:8, 1:8]) - np.log(np.abs(start)[1:8, 1:8])) / (100 * dt)
    rate = material.mobility(temperature) * (material.tau(temperature) * k2 - k2**2 - material.gamma)
    assert growth == pytest.approx(rate, rel=2e-3, abs=1e-3)


def test_time_stepping_is_of_first_order():
    material, temperature, time = Material.draw(2), 1.2, 16.0
    start = advance(fresh(material), material, temperature, 100, None, noise=False)
    ends = [
        to_field(advance(start, material, temperature, n, None, noise=False, dt=time / n))
        for n in (128, 256, 512, 1024)
    ]
    differences = [np.abs(b - a).max() for a, b in pairwise(ends)]
    orders = [math.log2(a / b) for a, b in pairwise(differences)]
    assert orders == pytest.approx([1.0] * len(orders), abs=0.1)


def test_every_grid_starts_with_the_same_film_and_feels_the_same_noise():
    material = Material.draw(3)
    fields = {}
    for grid in (32, 50, 96):
        noise, _, start = generators(9)
        fields[grid] = embed(advance(initial(material, grid, start), material, 1.9, 1, noise), 32)
    for grid in (50, 96):
        assert np.abs(fields[grid] - fields[32]).max() < 1e-5


@pytest.mark.parametrize("noise", [False, True])
def test_grid_is_resolution_only(noise):
    """Most films are the same on every grid.

    On the 32 grid the third harmonic of the pattern lies at the Nyquist wavenumber and folds back, which now and then
    decides which way a defect goes; so the median over films is what must agree.
    """
    apart = {32: [], 64: []}
    seen = []
    for seed in range(16):
        material = Material.draw(seed)
        end = {
            grid: embed(advance(fresh(material, grid, seed), material, 1.2, 80, generators(seed)[0], noise), 32)
            for grid in (32, 64, 128)
        }
        for grid in apart:
            apart[grid].append(np.std(to_field(end[2 * grid] - end[grid])))
        seen.append(np.abs(features(power(end[64])) - features(power(end[32])))[:3])
    assert np.median(apart[32]) < 0.03
    assert np.max(apart[64]) < 0.003
    assert np.median(seen, axis=0).max() < 0.005


def test_advancing_leaves_the_film_it_was_given_alone():
    material = Material.draw(5)
    start = fresh(material)
    copy = start.copy()
    advance(start, material, 1.5, 3, generators(0)[0])
    assert np.array_equal(start, copy)


def test_noise_has_the_strength_of_the_equation():
    """Far above the transition a mode is an Ornstein-Uhlenbeck process; c_k of one step has a known variance."""
    material = dataclasses.replace(Material.draw(6), mean=0.0)
    rng = generators(6)[0]
    uniform = np.zeros((32, 17), dtype=np.complex128)
    samples = np.array([advance(uniform, material, 1.5, 1, rng)[2, 3] for _ in range(4000)])
    k2 = UNIT**2 * (2**2 + 3**2)
    pace = material.mobility(1.5)
    expected = 2.0 * material.noise * 1.5 * pace * k2 / 32**2 / (1.0 + pace * (k2**2 + 0.5 * k2 + material.gamma)) ** 2
    assert np.mean(np.abs(samples) ** 2) == pytest.approx(expected, rel=0.08)


def test_straight_stripes_are_in_order_and_crossed_ones_are_not():
    q, rms, wavenumber, *bands = features(power(stripes(3, 4, 0.7)))
    assert (q, rms, wavenumber) == pytest.approx((1.0, 0.7 / math.sqrt(2.0), 5 * UNIT))
    occupied = [low <= 5 * UNIT < high for low, high in pairwise(BAND_EDGES)]
    assert bands == pytest.approx([0.245 * here for here in occupied])
    crossed = features(power(stripes(3, 4) + stripes(-4, 3)))
    assert crossed[0] == pytest.approx(0.0, abs=1e-12)


def test_a_good_film_is_ordered_and_segregated_in_truth_whatever_the_instrument_shows():
    faint = dataclasses.replace(Material.draw(0), contrast=0.1)
    seen = measure(stripes(4, 0, 0.6), faint, generators(0)[1])
    assert seen["good"] is True
    assert seen["amplitude"] < A_GOOD
    bright = dataclasses.replace(faint, contrast=10.0)
    assert measure(stripes(4, 0, 0.4), bright, generators(0)[1])["good"] is False
    assert measure(stripes(3, 4, 0.6) + stripes(-4, 3, 0.6), bright, generators(0)[1])["good"] is False
    assert 0.0 < Q_GOOD < 1.0


def test_many_films_measured_together_give_what_each_gives_alone():
    materials = [Material.draw(seed) for seed in range(6)]
    films = [advance(fresh(m, seed=i), m, 1.2, 60, generators(i)[0]) for i, m in enumerate(materials)]
    alone = [measure(c, m, generators(i)[1]) for i, (c, m) in enumerate(zip(films, materials, strict=True))]
    normals = np.stack([generators(i)[1].normal(size=READINGS) for i in range(6)])
    together = readings(features(np.stack([power(c) for c in films])), [m.contrast for m in materials], normals)
    for name, values in together.items():
        for one, value in zip(alone, values, strict=True):
            assert one[name] == pytest.approx(value, rel=1e-12)


def test_each_reading_has_an_error_of_the_stated_size():
    film = advance(fresh(Material.draw(3)), Material.draw(3), 1.2, 400, generators(3)[0])
    true = features(power(film))
    shown = readings(np.tile(true, (4000, 1)), np.ones(4000), np.random.default_rng(1).normal(size=(4000, READINGS)))
    assert np.std(shown["wavenumber"]) / true[2] == pytest.approx(0.01, rel=0.1)
    assert np.mean(shown["wavenumber"]) == pytest.approx(true[2], rel=1e-3)
    assert np.std(shown["q"]) == pytest.approx(0.01, rel=0.1)
    assert np.std(shown["amplitude"]) / true[1] == pytest.approx(0.03, rel=0.1)
    assert np.std(shown["bands"], axis=0) == pytest.approx(0.02, rel=0.1)
    errors = np.stack([shown["wavenumber"], shown["q"], shown["amplitude"], *shown["bands"].T])
    assert np.abs(np.corrcoef(errors) - np.eye(8)).max() < 0.1  # each of its own


def test_measured_wavenumber_and_structure_factor_agree_with_the_film():
    material = Material.draw(1)
    film = advance(fresh(material, 128), material, 1.1, 300, generators(1)[0])
    seen = measure(film, material, generators(1)[1])
    peak = 1 + int(np.argmax(structure_factor(film)))
    assert abs(seen["wavenumber"] - peak * UNIT) < UNIT
    assert abs(seen["amplitude"] / material.contrast / np.std(to_field(film)) - 1.0) < 0.15


@pytest.mark.parametrize("seed", range(20))
def test_drawn_materials_lie_in_their_ranges_and_survive_json(seed):
    material = Material.draw(seed)
    assert 1.2 <= material.t_odt <= 1.9
    assert 0.01 <= material.noise <= 0.06
    assert material.as_array().dtype == np.float32
    assert material.as_array().shape == (7,)
    assert np.abs(material.as_array()).max() <= 1.0001
    assert Material.from_json(material.to_json()) == material
    assert material.tau(material.t_odt) == pytest.approx(2.0 * math.sqrt(material.gamma))


@pytest.mark.parametrize(
    "change", [{"gamma": -1.0}, {"noise": math.nan}, {"mean": "much"}, {"mean": None}, {"colour": 1.0}, {"t_odt": 0.0}]
)
def test_a_material_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match=r"material|float"):
        Material.from_json(Material.draw(0).to_json() | change)
