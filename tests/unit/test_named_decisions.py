"""Decisions of networks are recorded and shown as named quantities, never as indices."""

from pathlib import Path

import numpy as np
import pytest
from run_folders import queue_config, simulated_run

import rlctl
from rlctl.config.load import load_config
from rlctl.core.campaign import head_sizes
from rlctl.core.driver import Driver
from rlctl.core.errors import JournalError
from rlctl.core.records import RecordList
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.monitoring.timeline import Timeline
from rlctl.monitoring.trace import trace_events
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.run_folder import read_run

CONFIGS = {
    "block_copolymer": "campaign: {name: block_copolymer}\nmachine: {cores: 2}\n",
    "ensemble": "campaign: {name: ensemble, options: {workload: {tasks: [8, 12]}}}\nmachine: {nodes: 8, cores: 1}\n",
}
QUANTITIES = {
    "block_copolymer": [{"temperature", "steps", "ranks", "give_up"}],
    "ensemble": [{"wait"}, {"start", "ranks", "gpu"}, {"stop"}],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_indices_are_recorded_with_their_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"schema: 1\nseed: 1\n{CONFIGS[name]}")
    config = load_config(tmp_path / "a.yaml")
    factory, records = configured_campaign(config), RecordList()
    campaign = factory.campaign(3)
    driver = Driver(campaign, SimulatedExecutor(config.machine.capacity(), factory.task_model(3), records), records)
    decision, rng = driver.begin(), np.random.default_rng(1)
    while decision is not None and driver.decisions < 12:
        mask, allowed = decision.mask, []
        for head in np.split(mask, np.cumsum(head_sizes(campaign.action_space))[:-1]):
            allowed.append(int(rng.choice(np.flatnonzero(head))))
        before = campaign.outcome()
        named = campaign.named(np.array(allowed))
        assert campaign.outcome() == before
        assert named is not None
        assert set(named) in QUANTITIES[name]
        decision = driver.step(np.array(allowed))
    timeline = Timeline.read(records, config.machine.capacity())
    assert all(set(answer.shown) in QUANTITIES[name] for answer in timeline.decisions)
    assert all(isinstance(answer.action, list) for answer in timeline.decisions)
    names = [event["name"] for event in trace_events(timeline) if event.get("cat") == "decision"]
    assert len(names) == len(timeline.decisions)
    assert not [text for text in names if text.split(": ")[1].replace(" ", "").isdigit()]
    if name == "block_copolymer":
        started = {record.data["parameters"]["temperature"] for record in records if record.kind == "submitted"}
        assert {round(answer.shown["temperature"], 6) for answer in timeline.decisions} >= started


def test_what_a_rule_names_is_not_recorded_twice(tmp_path: Path) -> None:
    config = queue_config(tmp_path)
    run = simulated_run(tmp_path / "run", config, "equal", decisions=5)
    for answer in read_run(run).timeline.decisions:
        assert answer.named is None or answer.named != answer.action
    with pytest.raises(JournalError, match="keeps no table of evaluations"):
        rlctl.results(run)
