"""A prior from earlier campaigns predicts the next one from few results, notices strangers, and is kept in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searches import search, steered

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.surrogates.campaign_prior import CampaignPrior, SearchGround, output_of, read_prior, write_prior
from rlctl.surrogates.informed_output import InformedOutput
from rlctl.surrogates.learned_process import ConditionedProcess
from rlctl.surrogates.output_model import OutputModel
from rlctl.surrogates.pooled_scale import PooledScale
from rlctl.surrogates.prior_evidence import prior_evidence
from rlctl.surrogates.search_model import Evaluated, SearchModel

pytestmark = pytest.mark.quick

PLANE = {"u": {"low": 0, "high": 1}, "v": {"low": 0, "high": 1}}
OPTIONS = {"parameters": PLANE, "objective": {"minimize": "y"}, "until": {"evaluations": 20}}
GROUPS = np.arange(2)


def valley(x: np.ndarray[Any, Any], shift: float) -> np.ndarray[Any, Any]:
    """A narrow valley that all members share; how far along it is lowest differs a little."""
    return np.asarray(30.0 * (x[:, 1] - 0.7 * x[:, 0] - 0.1) ** 2 + (x[:, 0] - 0.5 - 0.2 * shift) ** 2 + shift)


def campaign(number: int, count: int = 24) -> Evaluated:
    """An earlier campaign of the family; evaluations fail at the right edge, and take longer to the right."""
    rng = np.random.default_rng(number)
    x = rng.random((count, 2))
    failed = x[:, 0] > 0.9
    loss = np.where(failed, np.nan, valley(x, rng.uniform(-1.0, 1.0)))
    cost = np.where(failed, np.nan, np.exp(2.0 * x[:, 0] + 0.1 * rng.standard_normal(count)))
    return Evaluated(x, loss, np.zeros((count, 0)), ~failed, x, cost)


def ground() -> SearchGround:
    space = np.random.default_rng(99).random((60, 2))
    return SearchGround(GROUPS, GROUPS, space, space, noisy=False)


@pytest.fixture(scope="module")
def prior() -> CampaignPrior:
    return CampaignPrior.learn([campaign(number) for number in range(8)], ground(), 0)


def test_a_campaign_that_was_left_out_is_predicted_from_three_results(prior: CampaignPrior) -> None:
    new, test = campaign(50), np.random.default_rng(3).random((200, 2))
    known = output_of("loss", new)
    truth = valley(test, 0.0)  # but for a constant, and a little

    def likeness(model: InformedOutput | OutputModel) -> float:
        model.tune(known.x[:3], known.y[:3], np.random.default_rng(0))
        return float(np.corrcoef(model.unwarped(model.predict(test)[0]), truth)[0, 1])

    assert likeness(InformedOutput(prior.outputs["loss"], OutputModel(GROUPS, False), GROUPS)) > 0.9
    assert likeness(OutputModel(GROUPS, False)) < 0.7


def test_before_any_result_it_says_where_to_begin_what_lasts_and_what_fails(prior: CampaignPrior) -> None:
    model = SearchModel(GROUPS, GROUPS, prior=prior.outputs)
    along, across, edge = np.array([[0.5, 0.45]]), np.array([[0.2, 0.9]]), np.array([[0.98, 0.8]])
    assert model.predict(along).mean[0] < model.predict(across).mean[0]
    left, right = (model.log_cost(np.array([[u, 0.5]]))[0][0] for u in (0.1, 0.8))
    assert right - left == pytest.approx(1.4, abs=0.3)
    assert model.log_success(edge)[0] < model.log_success(along)[0] - 0.5


def test_a_stranger_is_noticed_after_some_results(prior: CampaignPrior) -> None:
    rng = np.random.default_rng(1)
    x = rng.random((30, 2))
    model = InformedOutput(prior.outputs["loss"], OutputModel(GROUPS, False), GROUPS)
    own = InformedOutput(prior.outputs["loss"], OutputModel(GROUPS, False), GROUPS)
    strange, usual = 40.0 * x[:, 0] - 30.0 * x[:, 1] ** 2 + 200.0, valley(x, 0.3)
    for count in range(1, 31):
        model.tune(x[:count], strange[:count], np.random.default_rng(0))
        own.tune(x[:count], usual[:count], np.random.default_rng(0))
    assert model.trust < 0.5 < own.trust
    alone = OutputModel(GROUPS, False)
    for count in range(1, 31):
        alone.tune(x[:count], strange[:count], np.random.default_rng(0))
    assert model.predict(x[:5])[0] == pytest.approx(alone.predict(x[:5])[0])


def test_conditioning_interpolates_results_and_believing_them_changes_no_mean(prior: CampaignPrior) -> None:
    x = np.random.default_rng(2).random((6, 2))
    process = ConditionedProcess(prior.outputs["loss"])
    z = process.learned.scale.warped(valley(x, 0.5))
    process.fit(x, z, process.learned.lengths)
    mean, deviation = process.predict(x)
    assert mean == pytest.approx(z, abs=0.05)
    new = np.array([[0.3, 0.3], [0.6, 0.5]])
    before, wide = process.predict(new)
    after, narrow = process.believing(new).predict(new)
    assert after == pytest.approx(before, abs=1e-3)
    assert (narrow < 0.2 * wide).all()
    assert deviation.max() < wide.min()


def test_a_folder_gives_the_same_predictions_and_damage_is_told(prior: CampaignPrior, tmp_path: Path) -> None:
    inputs = {"columns": [], "objective": ["minimize y"]}
    write_prior(tmp_path / "prior", prior, inputs, {"seed": 1})
    again = read_prior(tmp_path / "prior")
    x = np.random.default_rng(4).random((5, 2))
    for name in ("loss", "cost", "success"):
        one, other = (ConditionedProcess(of.outputs[name]).predict(x) for of in (prior, again.prior))
        assert np.array_equal(one, other)
    (tmp_path / "prior" / "prior.npz").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"is not the one that prior\.json was written with"):
        read_prior(tmp_path / "prior")
    with pytest.raises(ConfigError, match="holds no prior"):
        read_prior(tmp_path / "nowhere")
    data = json.loads((tmp_path / "prior" / "prior.json").read_text())
    (tmp_path / "prior" / "prior.json").write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(ConfigError, match="has format 99"):
        read_prior(tmp_path / "prior")


def test_evidence_says_that_a_family_helps() -> None:
    of = {(one.output, one.known): one for one in prior_evidence([campaign(n) for n in range(4)], ground(), 0)}
    assert of["loss", 5].rank > of["loss", 5].rank_without + 0.1
    assert of["loss", 5].gain > 0.5
    assert of["loss", 5].campaigns == 4
    assert ("loss", 20) not in of  # fewer than five evaluations are left


def test_pooled_scales_are_inverse_to_themselves() -> None:
    rng = np.random.default_rng(5)
    scale = PooledScale.of([np.exp(rng.standard_normal(20)) + shift for shift in (0.0, 1.0)], warp=True)
    y = np.array([0.1, 0.5, 2.0, 9.0])
    assert scale.power < 1.0
    assert scale.unwarped(scale.warped(y)) == pytest.approx(y, rel=1e-6)
    slope = (scale.warped(y + 1e-5) - scale.warped(y - 1e-5)) / 2e-5
    assert scale.log_slope(y) == pytest.approx(np.log(slope), abs=1e-4)


def family(p: Mapping[str, Any], shift: float = 0.3) -> float:
    return float(valley(np.array([[p["u"], p["v"]]]), shift)[0])


def table(rows: Sequence[Mapping[str, Any]]) -> RecordedTable:
    return RecordedTable(Path("t.csv"), rows, [f"t.csv:{i + 2}" for i in range(len(rows))], "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``prior``, learned from the tables of four campaigns that the default rule has played."""
    home = tmp_path_factory.mktemp("learned")
    transfer = search(OPTIONS).transfer(Capacity(nodes=1, cores=1))
    campaigns = []
    for number, shift in enumerate((-0.8, -0.1, 0.2, 0.7)):
        found = steered(search(OPTIONS), lambda p, _, shift=shift: family(p, shift), seed=number)  # type: ignore[misc]
        rows = [{**t.values, **t.results, "status": "done", "duration_s": 10.0} for t in found.state.trials]
        campaigns.append(transfer.recorded(table(rows)))
    write_prior(home / "prior", CampaignPrior.learn(campaigns, transfer.ground(0), 0), transfer.inputs, {})
    return home


def evaluations(folder: Path, seed: int, **parameters: Any) -> int:
    options = {**OPTIONS, "until": {"value": 0.305, "evaluations": 60}, "prior": "prior"}
    found = steered(search(options, folder), lambda p, _: family(p), seed=seed, **parameters)
    assert found.outcome().reached
    return len(found.state.trials)


def test_the_next_campaign_needs_fewer_evaluations_and_rules_may_do_without(folder: Path) -> None:
    without = [evaluations(folder, seed, prior=False) for seed in range(4)]
    assert sum(evaluations(folder, seed) for seed in range(4)) < 0.8 * sum(without)
    options = {**OPTIONS, "until": {"value": 0.305, "evaluations": 60}}
    assert without[3] == len(steered(search(options), lambda p, _: family(p), seed=3).state.trials)


def test_a_resumed_search_learns_the_same_however_often_it_was_asked(folder: Path) -> None:
    options = {**OPTIONS, "until": {"evaluations": 12}, "prior": "prior"}
    found = steered(search(options, folder), lambda p, _: family(p), seed=3).state
    often = found.model().predict(np.random.default_rng(0).random((4, 2)))
    found._models.clear()
    found._learned.clear()
    once = found.model().predict(np.random.default_rng(0).random((4, 2)))
    assert np.array_equal(often.mean, once.mean)
    assert np.array_equal(often.deviation, once.deviation)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"parameters": {**PLANE, "w": {"low": 0, "high": 1}}}, "prior does not know 'w'"),
        ({"parameters": {"u": PLANE["u"]}}, "prior depends on 'v'"),
        ({"parameters": {**PLANE, "u": {"low": 0, "high": 2}}}, "prior knows 'u' within other values or bounds"),
        ({"parameters": dict(reversed(PLANE.items()))}, "prior has its parameters in another order"),
        ({"objective": {"maximize": "y"}}, "prior is of the objective minimize y"),
        ({"prior": "elsewhere"}, "elsewhere holds no prior"),
    ],
)
def test_a_prior_of_other_campaigns_is_refused(folder: Path, changes: Mapping[str, Any], problem: str) -> None:
    factory = search({**OPTIONS, "prior": "prior", **changes}, folder)
    with pytest.raises(ConfigError, match=problem) as told:
        factory.check(Capacity(nodes=1, cores=1), real=True)
    assert told.value.key == ("campaign", "options", "prior")


def test_tables_that_cannot_be_used_are_told_with_their_line() -> None:
    transfer = search(OPTIONS).transfer(Capacity(nodes=1, cores=1))
    good = {"u": 0.5, "v": 0.5, "y": 1.0, "duration_s": 3.0}
    with pytest.raises(ConfigError, match=r"t.csv:3: u: 7.0 is not a number from 0 to 1"):
        transfer.recorded(table([good, {**good, "u": 7.0}]))
    with pytest.raises(ConfigError, match="there is no column 'v'"):
        transfer.recorded(table([{"u": 0.5, "y": 1.0, "duration_s": 3.0}]))
    with pytest.raises(ConfigError, match="has no evaluations that have ended"):
        transfer.recorded(table([{**good, "status": "running"}]))
    read = transfer.recorded(table([good, {**good, "status": "failed", "y": None}, {**good, "status": "stopped"}]))
    assert read.succeeded.tolist() == [True, False]
    assert read.cost.tolist()[0] == pytest.approx(3.0)
    assert np.isnan(read.cost[1])


def test_campaigns_on_the_twin_differ_and_follow_from_the_seed() -> None:
    transfer = search(OPTIONS).transfer(Capacity(nodes=1, cores=1))
    one, again, other = (transfer.drawn(2, 8, seed) for seed in (1, 1, 2))
    assert [len(campaign.succeeded) for campaign in one] == [8, 8]
    assert np.array_equal(one[0].losses, again[0].losses, equal_nan=True)
    assert not np.array_equal(one[0].losses, one[1].losses, equal_nan=True)
    assert not np.array_equal(one[0].losses, other[0].losses, equal_nan=True)
