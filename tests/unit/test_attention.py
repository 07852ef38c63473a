"""The network that attends to sets: what PyTorch trains is what NumPy computes, whatever the order of the rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO

from rlctl.api import train
from rlctl.bundle import golden, saved_policy
from rlctl.bundle.attention import AttentionSpec
from rlctl.bundle.manifest import Network, as_data, validate
from rlctl.bundle.network import NumpyPolicy, declared_weights
from rlctl.bundle.policy_network import ATTENTION, PolicyNetwork
from rlctl.config.load import load_config
from rlctl.config.schema import Config
from rlctl.core.campaign import Decision
from rlctl.core.errors import ConfigError, PolicyError
from rlctl.core.sets import SetLayout
from rlctl.distributed.actor.numpy_policies import ActorPolicy
from rlctl.distributed.comm.transition_spec import TransitionSpec
from rlctl_agents.policy_export import policy_spec, policy_weights
from rlctl_agents.ppo.config import PPOConfig
from rlctl_agents.ppo.networks import PrivilegedPolicy
from rlctl_agents.set_networks import FAVOUR, AttentionActor

SPEC = AttentionSpec(once=3, sets=[[5, 4], [4, 3], [2, 2]], prior=3, width=8, heads=2, layers=2)
LENGTH = SPEC.layout.length
ROOT = Path(__file__).parents[2]


def rows(count: int, seed: int = 0, spec: AttentionSpec = SPEC) -> NDArray[np.float32]:
    """Observations with rows that are empty; in the last ones all of the second set."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, spec.layout.length)).astype(np.float32)
    at = spec.once
    for i, (number, width) in enumerate(spec.sets):
        part = x[:, at : at + number * width].reshape(count, number, width)
        there = rng.random((count, number)) < 0.6
        there[:, 0] |= i != 1
        if i == 1:
            there[-count // 4 :] = False
        part *= there[:, :, None]
        part[:, :, 0] = there
        at += number * width
    return x


def actor(spec: AttentionSpec = SPEC) -> AttentionActor:
    torch.manual_seed(0)
    return AttentionActor(spec)


def in_numpy(net: AttentionActor, dtype: Any = np.float32) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    weights = {f"{ATTENTION}{name}": tensor.detach().numpy().astype(dtype) for name, tensor in net.weights()}
    found = PolicyNetwork(Network(hidden=[], attention=net.spec), weights)
    return lambda x: found(x.astype(dtype), found.initial_state(len(x)))[0]


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("prior", [None, 3])
def test_numpy_computes_what_pytorch_does(layers: int, prior: int | None) -> None:
    spec = SPEC.model_copy(update={"layers": layers, "prior": prior})
    net, x = actor(spec), rows(64, spec=spec)
    with torch.no_grad():
        theirs = net(torch.from_numpy(x)).numpy()
    ours = in_numpy(net)(x)
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(in_numpy(net, np.float64)(x) - theirs).max() < 1e-5


def test_the_order_of_rows_does_not_matter_but_to_the_choices() -> None:
    net, x = in_numpy(actor()), rows(32)
    logits = net(x)
    rng = np.random.default_rng(1)
    moved, at = x.copy(), SPEC.once
    order = rng.permutation(5)
    for i, (number, width) in enumerate(SPEC.sets):
        new = order if i == 0 else rng.permutation(number)
        part = moved[:, at : at + number * width].reshape(len(x), number, width)
        part[:] = part[:, new].copy()
        at += number * width
    assert np.abs(net(moved) - logits[:, order]).max() < 1e-5


def test_where_nothing_is_there_all_compute_the_same() -> None:
    net, x = actor(), rows(8)
    x[:, SPEC.once :] = 0.0
    with torch.no_grad():
        theirs = net(torch.from_numpy(x)).numpy()
    assert np.isfinite(theirs).all()
    assert np.abs(in_numpy(net)(x) - theirs).max() < 1e-5
    assert np.abs(in_numpy(net, np.float64)(x) - theirs).max() < 1e-5


def test_it_looks_at_the_other_sets() -> None:
    net, x = in_numpy(actor()), rows(32)
    other = x.copy()
    other[:, -1] += 1.0
    filled = x[:, -2] > 0.5
    assert filled.any()
    assert np.abs(net(other) - net(x))[filled].max() > 1e-4


def test_without_layers_each_choice_is_scored_by_itself() -> None:
    net, x = in_numpy(actor(SPEC.model_copy(update={"layers": 0}))), rows(32)
    other = x.copy()
    other[:, SPEC.once + 4 :] = 0.0
    assert net(other)[:, 0] == pytest.approx(net(x)[:, 0])
    other[:, : SPEC.once] += 1.0
    assert np.abs(net(other)[:, 0] - net(x)[:, 0]).max() > 1e-4


def model(prior: int | None = 3) -> PPO:
    spec = SPEC.model_copy(update={"prior": prior})

    class Env(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-9, 9, (LENGTH + 5 + 2,), np.float32)
        action_space = gymnasium.spaces.MultiDiscrete([5])

        def reset(self, **_: Any) -> Any:
            return np.zeros(LENGTH + 7, np.float32), {}

    kwargs = {"n_obs": LENGTH, "n_mask": 5, "attention": spec.model_dump()}
    return PPO(PrivilegedPolicy, Env(), policy_kwargs=kwargs, n_steps=4, batch_size=2, device="cpu")


def test_a_policy_begins_as_the_rule_says() -> None:
    x = rows(16)
    at = SPEC.once
    choices = x[:, at : at + 20].reshape(16, 5, 4)
    choices[:, :, 3] = 0.0
    choices[np.arange(16), 0, 3] = 1.0
    seen = np.concatenate([x, np.ones((16, 5)), np.zeros((16, 2))], axis=1, dtype=np.float32)
    policy: Any = model().policy
    logits = policy.mlp_extractor.forward_actor(torch.from_numpy(seen)).detach().numpy()
    assert logits[:, 0] == pytest.approx(FAVOUR)
    assert logits[:, 1:] == pytest.approx(0.0)
    assert model().predict(seen, deterministic=True)[0].ravel().tolist() == [0] * 16


def test_what_actors_compute_and_what_is_saved_is_the_model(tmp_path: Path) -> None:
    trained = model()
    actor_net: Any = trained.policy.mlp_extractor.actor
    with torch.no_grad():
        for _, tensor in actor_net.weights():
            tensor.add_(0.1 * torch.randn_like(tensor))
    x = rows(64)
    with torch.no_grad():
        theirs = actor_net(torch.from_numpy(x)).numpy()
    layout, space = TransitionSpec(LENGTH, 5, 2, 1), gymnasium.spaces.MultiDiscrete([5])
    policy = ActorPolicy(policy_spec(trained), layout, space)
    policy.load(policy_weights(trained))
    seen = np.concatenate([x, np.ones((64, 5)), np.zeros((64, 2))], axis=1, dtype=np.float32)
    assert np.abs(policy.outputs(seen, policy.initial_state(64))[0] - theirs).max() < 1e-4
    trained.save(tmp_path / "model.zip")
    again = PPO.load(tmp_path / "model.zip", device="cpu")
    assert (again.predict(seen, deterministic=True)[0] == trained.predict(seen, deterministic=True)[0]).all()
    weights = {f"{ATTENTION}{n}": t.detach().numpy() for n, t in actor_net.weights()}
    saved_policy.save(tmp_path / "policy", weights, manifest(), x, None)
    saved = saved_policy.load(tmp_path / "policy")
    assert np.abs(saved.logits(x) - theirs).max() < 1e-4
    assert np.abs(saved.logits(x[3]) - theirs[3]).max() < 1e-4
    answer = saved.act(Decision("", 0.0, {}, x[0], np.array([False, True, True, False, True])))
    assert answer[0] in (1, 2, 4)


def manifest(**changes: Any) -> dict[str, Any]:
    spaces = saved_policy.describe(gymnasium.spaces.Box(-9, 9, (LENGTH,), np.float32), gymnasium.spaces.Discrete(5))
    network = {"hidden": [], "attention": SPEC.model_dump() | changes}
    campaign = {"name": "toy", "version": 1}
    return {"name": "toy", "campaign": campaign, "spaces": spaces, "network": network, "deterministic": True}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"once": 4}, "sets of 45 numbers for observations of 39"),
        ({"sets": [[4, 5], [4, 3], [2, 2]]}, "4 rows for 5 choices"),
        ({"heads": 3}, "cannot be divided among 3 heads"),
        ({"prior": 4}, "prior 4 is beyond"),
        ({"width": 4096, "layers": 16}, "more than"),
        ({"sets": [[5, 0], [4, 3], [2, 2]]}, "rows or numbers"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    weights = {f"{ATTENTION}{n}": t.detach().numpy() for n, t in actor().weights()}
    with pytest.raises(PolicyError, match=said if changes != {"once": 4} else "sets of 40 numbers") as caught:
        saved_policy.save(tmp_path / "policy", weights, manifest(**changes), rows(64), None)
    assert "\n" not in str(caught.value)


def claim(data: dict[str, Any], pairs: int = 64) -> Any:
    """A manifest with figures that fit, and nothing behind it."""
    figures = {name: [0.0] * data["spaces"]["observation"]["shape"][0] for name in ("mean", "std", "min", "max")}
    more = {"schema": 2, "observations": {"count": 1, **figures}, "golden_pairs": pairs, "files": {}}
    return validate(data | more, Path("manifest.json"))


@pytest.mark.parametrize(
    ("sets", "width"), [([[30000, 1], [30000, 1]], 8), ([[2000, 1]], 1024), ([[2, 1], [65536, 1]], 64)]
)
def test_what_would_take_gigabytes_or_hours_is_refused_before_anything_is_made(
    sets: list[list[int]], width: int
) -> None:
    spec = {"once": 0, "sets": sets, "prior": None, "width": width, "heads": 2, "layers": 1}
    length, choices = sum(rows * numbers for rows, numbers in sets), sets[0][0]
    observation = gymnasium.spaces.Box(-9, 9, (length,), np.float32)
    spaces = saved_policy.describe(observation, gymnasium.spaces.Discrete(choices))
    claimed = claim(manifest() | {"spaces": spaces, "network": {"hidden": [], "attention": spec}})
    tracemalloc.start()
    try:
        with pytest.raises(PolicyError, match="too much for a decision"):
            declared_weights(claimed)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_golden_pairs_that_would_take_hours_are_refused() -> None:
    claimed = claim(manifest(width=512), pairs=4096)
    weights = {name: np.zeros(shape, dtype) for name, (shape, dtype) in declared_weights(claimed).items()}
    policy = NumpyPolicy(weights, claimed)
    with pytest.raises(PolicyError, match="4096 golden pairs would take too long"):
        golden.declared(claimed, policy)
    golden.declared(claim(manifest(width=512), pairs=golden.PAIRS), policy)


@pytest.mark.parametrize("more", [{"hidden": [8]}, {"hidden": [], "lstm": 4}])
def test_layers_beside_the_attention_are_refused(more: dict[str, Any]) -> None:
    data = manifest()
    with pytest.raises(PolicyError, match="layers beside the attention"):
        declared_weights(claim(data | {"network": data["network"] | more}))


def test_numbers_are_no_choices() -> None:
    box = gymnasium.spaces.Box(-9, 9, (LENGTH,), np.float32)
    spaces = saved_policy.describe(box, gymnasium.spaces.Box(-1, 1, (5,), np.float32))
    with pytest.raises(PolicyError, match="or no choices"):
        declared_weights(claim(manifest() | {"spaces": spaces}))


def test_manifests_without_attention_stay_as_they_were() -> None:
    assert "attention" in as_data(claim(manifest()))["network"]
    assert "attention" not in as_data(claim(manifest() | {"network": {"hidden": [8]}}))["network"]


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (LENGTH + 1, gymnasium.spaces.Discrete(5)),
        (LENGTH, gymnasium.spaces.Discrete(4)),
        (LENGTH, gymnasium.spaces.MultiDiscrete([5, 2])),
    ],
)
def test_a_campaign_whose_layout_does_not_fit_its_spaces_is_refused(
    observation: int, action: gymnasium.spaces.Space[Any]
) -> None:
    box = gymnasium.spaces.Box(-9, 9, (observation,), np.float32)
    campaign = SimpleNamespace(layout=SPEC.layout, observation_space=box, action_space=action)
    factory = cast(Any, SimpleNamespace(name="toy", campaign=lambda seed: campaign))
    config = Config.model_validate({"schema": 1, "seed": 1, "campaign": {"name": "toy"}})
    with pytest.raises(ConfigError, match="correct the campaign's layout") as caught:
        PPOConfig(network="attention").check_choices(config, factory)
    assert "\n" not in str(caught.value)
    campaign.observation_space = gymnasium.spaces.Box(-9, 9, (LENGTH,), np.float32)
    campaign.action_space = gymnasium.spaces.MultiDiscrete([5])
    PPOConfig(network="attention").check_choices(config, factory)


def test_where_there_are_no_sets_it_is_refused(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "annealing.yaml", ["train.options={network: attention}"])
    with pytest.raises(ConfigError, match="is not made of sets"):
        train(config, tmp_path / "run")
    config = load_config(ROOT / "configs" / "ensemble.yaml", ["train.options.attention.heads=3"])
    with pytest.raises(ConfigError, match="divided among 3 heads"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["train.options.logit_bias=[0.0, 1.0]"], "one bias: leave it out"),
        (["train.options.attention={width: 4096, layers: 16}"], "more than 16,777,216 weights"),
        (["train.options.attention={width: 0}"], "greater than or equal to 1"),
        (["train.options.network=recurrent"], "'perceptron' or 'attention'"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(tmp_path: Path, sets: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        train(load_config(ROOT / "configs" / "ensemble.yaml", sets), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_the_layout_counts_what_there_is() -> None:
    assert SetLayout(3, ((5, 4), (4, 3), (2, 2))).length == LENGTH == 39
