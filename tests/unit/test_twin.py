"""The twin: equal to the program's solver, to itself in any batch, and to single environments step for step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl_envs.block_copolymer import field as solver
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.material import Material
from rlctl_envs.block_copolymer.twin import advance_films


def starts(materials: list[Material], first: int = 0) -> list[np.ndarray]:
    return [solver.initial(m, 32, np.random.default_rng(first + i)) for i, m in enumerate(materials)]


def test_equals_the_programs_solver_without_noise():
    """Single against double precision: 1e-4 of a field of order 1 after 160 steps."""
    materials = [Material.draw(i) for i in range(20)]
    temperatures = [1.0 + 0.05 * i for i in range(20)]
    steps = [80 + 4 * i for i in range(20)]
    begin = starts(materials)
    fields = np.stack([solver.to_field(c) for c in begin]).astype(np.float32)
    got = advance_films(fields, materials, temperatures, steps, [0] * 20, noise=False)
    for i, c in enumerate(begin):
        want = solver.to_field(solver.advance(c, materials[i], temperatures[i], steps[i], None, noise=False))
        assert np.abs(got[i] - want).max() < 1e-4
    assert np.abs(got).max() > 0.3


@pytest.mark.parametrize("temperature", [1.15, 1.5, 1.95])
def test_equals_the_programs_solver_in_distribution_with_noise(temperature):
    """96 films each of one material: amplitude, Q and the five bands by Kolmogorov and Smirnov, Bonferroni at 1e-3."""
    material, count, steps = Material.draw(3), 96, 160
    begin = starts([material] * count)
    program = [
        solver.to_field(solver.advance(c, material, temperature, steps, np.random.default_rng(9000 + i)))
        for i, c in enumerate(begin)
    ]
    fields = np.stack([solver.to_field(c) for c in starts([material] * count, first=500)]).astype(np.float32)
    twin = advance_films(fields, [material] * count, [temperature] * count, [steps] * count, list(range(count)))
    seen = [
        solver.features(np.stack([solver.power(solver.to_spectrum(np.asarray(f, float))) for f in films]))
        for films in (program, twin)
    ]
    worst = min(stats.ks_2samp(seen[0][:, i], seen[1][:, i]).pvalue for i in range(seen[0].shape[1]))
    assert worst > 1e-3 / seen[0].shape[1]


def test_the_noise_has_the_spectrum_of_the_programs():
    """A hot film without a well fluctuates; mean power of each ring of modes, 2048 twin films against 512."""
    material = Material(1.2, 3.0, 0.25, 1.0, 0.05, 0.0, 1.0)
    spectra = []
    begin = starts([material] * 512)
    program = [
        solver.power(solver.advance(c, material, 2.0, 30, np.random.default_rng(40_000 + i)))
        for i, c in enumerate(begin)
    ]
    spectra.append(np.mean(program, axis=0))
    fields = np.stack([solver.to_field(c) for c in starts([material] * 2048, first=10_000)]).astype(np.float32)
    twin = advance_films(fields, [material] * 2048, [2.0] * 2048, [30] * 2048, list(range(2048)))
    hat = np.fft.rfft2(twin, norm="forward")
    spectra.append(np.mean(hat.real**2 + hat.imag**2, axis=0))
    ratio = spectra[1][:16, :16] / np.maximum(spectra[0][:16, :16], 1e-30)
    ratio[0, 0] = 1.0
    # Power of one mode has relative deviation 1: the standard error of a ratio is sqrt(1/512 + 1/2048) = 0.05.
    assert np.abs(ratio - 1.0).max() < 0.05 * 5
    assert abs(np.mean(ratio) - 1.0) < 0.01
    assert abs(np.mean(ratio[1:, 0]) - 1.0) < 0.05  # kx = 0 has a treatment of its own
    assert abs(np.mean(ratio[0, 1:]) - 1.0) < 0.05


def test_a_film_does_not_depend_on_its_neighbours():
    materials = [Material.draw(i) for i in range(37)]
    fields = np.stack([solver.to_field(c) for c in starts(materials)]).astype(np.float32)
    temperatures = list(np.linspace(1.0, 2.0, 37))
    steps = [80, 160, 320] * 12 + [80]
    together = advance_films(fields, materials, temperatures, steps, list(range(37)))
    for i in (0, 5, 16, 36):
        alone = advance_films(fields[i : i + 1], materials[i : i + 1], temperatures[i : i + 1], steps[i : i + 1], [i])
        np.testing.assert_array_equal(alone[0], together[i])


def test_vector_environment_equals_single_environments_step_for_step():
    """Exactly, but for the last bits of the measurements: BLAS adds up in another order for another batch."""
    factory = BlockCopolymer({"films": 2, "allocation_s": 12.0, "q_good": 0.3, "amplitude_good": 0.1})
    count, seed = 3, 17
    many = CampaignVectorEnv(factory, count, seed, factory.capacity, gamma=0.99)
    singles = [CampaignEnv(factory, factory.capacity, gamma=0.99) for _ in range(count)]
    played = [0] * count
    observations, infos = many.reset()
    rng = np.random.default_rng(0)
    for i, single in enumerate(singles):
        seen, info = single.reset(options={"instance": many.instance(i, 0)})
        np.testing.assert_allclose(seen, observations[i], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(info["privileged"], infos["privileged"][i])
    endings = 0
    for _ in range(80):
        actions = np.stack([rng.integers(n, size=count) for n in many.single_action_space.nvec], axis=1)
        actions[:, 3] = rng.random(count) < 0.05
        observations, rewards, terminated, truncated, infos = many.step(actions)
        for i, single in enumerate(singles):
            seen, reward, term, trunc, info = single.step(actions[i])
            assert reward == pytest.approx(rewards[i], rel=1e-9, abs=1e-12)
            assert (term, trunc) == (terminated[i], truncated[i])
            if term or trunc:
                endings += 1
                np.testing.assert_allclose(seen, infos["final_obs"][i], rtol=0, atol=1e-5)
                assert info["node_seconds"] == pytest.approx(infos["final_info"]["node_seconds"][i])
                played[i] += 1
                seen, info = single.reset(options={"instance": many.instance(i, played[i])})
            np.testing.assert_allclose(seen, observations[i], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(info["action_mask"], infos["action_mask"][i])
    assert endings > 5


def test_campaigns_played_together_end_as_they_do_alone():
    from rules_for_tests import Hold

    factory = BlockCopolymer({"films": 1, "allocation_s": 10.0})
    together = rollout_on_twin(factory, factory.capacity, [(i, Hold()) for i in range(6)])
    alone = [rollout_on_twin(factory, factory.capacity, [(i, Hold())])[0] for i in range(6)]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other)


def test_the_simulated_executor_is_deterministic_per_seed():
    factory = BlockCopolymer({"films": 1, "allocation_s": 10.0})
    ends = []
    for _ in range(2):
        executor = SimulatedExecutor(factory.capacity, factory.task_model(4))
        from rlctl.environments.campaign_env import Episode

        episode = Episode(factory.campaign(4), executor, 0.99)
        episode.begin()
        times = []
        while episode.decision is not None:
            episode.driver.answer({"temperature": 1.4, "steps": 80, "ranks": 1, "give_up": False})
            episode.reward()
            times.append(executor.now())
        ends.append(times)
    assert ends[0] == ends[1]
