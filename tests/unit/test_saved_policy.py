import json
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from gymnasium import spaces

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import to_bytes
from rlctl.core.campaign import Decision
from rlctl.core.errors import PolicyError

HEADS, N_OBS = (5, 3, 2), 7


def arrays(n_obs=N_OBS, width=16, heads=HEADS, seed=0):
    random = np.random.default_rng(seed)
    sizes = [n_obs, width, width, sum(heads)]
    weights = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        weights[f"{i}.weight"] = random.normal(size=(outputs, inputs)).astype(np.float32)
        weights[f"{i}.bias"] = random.normal(size=outputs).astype(np.float32)
    return weights


def observed(n_obs=N_OBS):
    return spaces.Box(-np.inf, np.inf, (n_obs,), np.float32)


def manifest(n_obs=N_OBS, heads=HEADS, width=16, **more):
    return {
        "name": "toy policy",
        "campaign": {"name": "toy", "version": 1},
        "spaces": saved_policy.describe(observed(n_obs), spaces.MultiDiscrete(heads)),
        "network": {"hidden": [width, width]},
        "deterministic": True,
        **more,
    }


def seen(n_obs=N_OBS, heads=HEADS, count=100):
    random = np.random.default_rng(5)
    asked = [question(random, n_obs, heads) for _ in range(count)]
    return np.array([a.observation for a in asked]), np.array([a.mask for a in asked])


def question(random, n_obs=N_OBS, heads=HEADS):
    mask = random.random(sum(heads)) < 0.5
    mask[np.cumsum((0, *heads[:-1]))] = True
    return Decision("film", 0.0, {}, random.normal(size=n_obs).astype(np.float32), mask)


@pytest.fixture
def folder(tmp_path):
    saved_policy.save(tmp_path / "policy", arrays(), manifest(name="learned"), *seen())
    return tmp_path / "policy"


def test_answers_are_the_largest_allowed_logits_of_a_tanh_network(folder):
    policy, random, w = saved_policy.load(folder), np.random.default_rng(1), arrays()
    for _ in range(50):
        asked = question(random)
        x = np.tanh(w["0.weight"] @ asked.observation + w["0.bias"])
        x = np.tanh(w["1.weight"] @ x + w["1.bias"])
        logits = np.where(asked.mask, w["2.weight"] @ x + w["2.bias"], -np.inf)
        expected = [part.argmax() for part in np.split(logits, np.cumsum(HEADS)[:-1])]
        assert policy.act(asked).tolist() == expected


def test_drawn_answers_are_allowed_follow_the_probabilities_and_repeat_from_a_saved_state(folder):
    policy, asked = saved_policy.load(folder, deterministic=False), question(np.random.default_rng(2))
    asked.mask[:5] = [True, False, True, True, False]
    policy.reset(7)
    drawn = np.array([policy.act(asked) for _ in range(4000)])
    logits = policy.logits(asked.observation)[:5].astype(float)
    expected = np.where(asked.mask[:5], np.exp(logits - logits.max()), 0.0)
    share = np.bincount(drawn[:, 0], minlength=5) / len(drawn)
    assert share == pytest.approx(expected / expected.sum(), abs=0.03)
    assert share[~asked.mask[:5]].sum() == 0.0
    state = json.loads(json.dumps(policy.state()))
    after = [policy.act(asked).tolist() for _ in range(20)]
    policy.restore(state)
    assert [policy.act(asked).tolist() for _ in range(20)] == after
    policy.reset(7)
    assert [policy.act(asked).tolist() for _ in range(4000)] == drawn.tolist()


def test_observations_are_clipped_if_the_manifest_says_so(tmp_path):
    saved_policy.save(
        tmp_path / "p", arrays(), manifest(network={"hidden": [16, 16], "observation_clip": 2.0}), *seen()
    )
    policy = saved_policy.load(tmp_path / "p")
    assert np.array_equal(policy.logits(np.full(N_OBS, 1e9)), policy.logits(np.full(N_OBS, 2.0)))


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(folder):
    (folder.parent / "model.zip").write_text("zip")
    saved_policy.save(folder, arrays(seed=1), manifest(name="second"), *seen(), files=[folder.parent / "model.zip"])
    assert saved_policy.load(folder).name == "second"
    assert {path.name for path in folder.parent.iterdir()} == {"policy", "model.zip"}
    assert {path.name for path in folder.iterdir()} == {"weights.npz", "golden.npz", "manifest.json", "model.zip"}


def test_the_folder_of_a_training_is_refused_with_that_of_its_policy(folder):
    with pytest.raises(PolicyError, match=rf"{folder.parent} is no saved policy, .*; but {folder} is: give that"):
        saved_policy.load(folder.parent)
    (folder / "manifest.json").unlink()
    with pytest.raises(PolicyError, match=r"no manifest\.json; a training that has ended leaves one"):
        saved_policy.load(folder.parent)


def test_what_cannot_be_loaded_is_never_saved_and_the_old_one_stays(folder):
    with pytest.raises(PolicyError, match=r"2\.weight\.npy is not"):
        saved_policy.save(folder, arrays(), manifest(heads=(5, 3)), *seen())
    with pytest.raises(PolicyError, match="not finite"):
        saved_policy.save(folder, arrays() | {"0.bias": np.full(16, np.nan)}, manifest(), *seen())
    assert saved_policy.load(folder).name == "learned"
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "schema 1, but this rlctl reads schema 2"),
        ({"schema": None}, "schema None"),
        ({"network": {"hidden": [16, 16], "activation": "sine"}}, "network.activation: .*'tanh' or 'relu'"),
        ({"network": {"hidden": [16]}}, "does not hold the arrays"),
        ({"network": {"hidden": [16, 17]}}, "1.weight.npy is not"),
        ({"campaign": {"name": "toy"}}, "campaign.version"),
        ({"campaign": None}, "campaign"),
        ({"spaces": {"observation": {"type": "Discrete", "n": 8}}}, "spaces.action"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_in_one_line(folder, change, message):
    path = folder / "manifest.json"
    said = json.loads(path.read_text()) | change
    said.pop("checksum")
    path.write_bytes(to_bytes(said))
    with pytest.raises(PolicyError, match=message) as error:
        saved_policy.load(folder)
    assert "\n" not in str(error.value)


def test_damage_is_noticed(folder, tmp_path):
    weights = folder / "weights.npz"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(PolicyError, match="SHA-256"):
        saved_policy.load(folder)
    weights.unlink()
    with pytest.raises(PolicyError, match="No such file"):
        saved_policy.load(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(PolicyError, match="damaged"):
        saved_policy.load(folder)
    with pytest.raises(PolicyError, match="no saved policy here"):
        saved_policy.load(tmp_path / "nowhere")


def test_it_is_refused_for_another_campaign_version_or_shape(folder):
    policy = saved_policy.load(folder)
    sees, does = observed(), spaces.MultiDiscrete(HEADS)
    policy.require("toy", 1, sees, does)
    for other in (
        ("queue", 1, sees, does),
        ("toy", 2, sees, does),
        ("toy", 1, observed(8), does),
        ("toy", 1, sees, sees),
    ):
        with pytest.raises(PolicyError, match="learned"):
            policy.require(*other)


def test_an_answer_takes_a_few_calls_whatever_the_size_of_the_network(tmp_path):
    heads = (21, 4, 2, 2)
    saved_policy.save(tmp_path / "p", arrays(150, 128, heads), manifest(150, heads, 128), *seen(150, heads))
    policy, asked = saved_policy.load(tmp_path / "p"), question(np.random.default_rng(0), 150, heads)
    policy.act(asked)
    calls = Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        policy.act(asked)
    finally:
        sys.setprofile(None)
    assert 0 < calls["call"] + calls["c_call"] < 150
