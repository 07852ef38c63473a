"""Run folders for tests: a campaign on the simulated executor, written down as a real one is."""

from collections.abc import Sequence
from pathlib import Path

from rlctl.config.load import config_hash, load_config, write_config
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.driver import Driver
from rlctl.core.json_values import json_text
from rlctl.core.records import Record, RecordList
from rlctl.executors.event_log import Journal
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.monitoring.ledger import allocation_ledger
from rlctl.monitoring.timeline import Timeline
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.steering.run_folder import portable
from rlctl.steering.summary import Summary, task_counts

QUEUE = """
schema: 1
seed: 3
campaign: {name: ensemble, options: {workload: {tasks: [16, 24]}}}
machine: {nodes: 32, cores: 1, gpus: GPUS}
policies:
  wide: {rule: lpt, parameters: {most: 0.8}}
  equal: {rule: same_efficiency}
"""


def queue_config(folder: Path, gpus: int = 0) -> Config:
    path = folder / "experiment.yaml"
    path.write_text(QUEUE.replace("GPUS", str(gpus)))
    return load_config(path)


def simulated_run(
    run: Path, config: Config, policy: str, instance: int = 5, decisions: int | None = None, plus: Sequence[Record] = ()
) -> Path:
    """A run folder; of a campaign that was killed after so many decisions, if that is given."""
    factory = configured_campaign(config)
    records = RecordList()
    records.append("epoch", 0.0, {})
    executor = SimulatedExecutor(config.machine.capacity(), factory.task_model(instance), records)
    driver = Driver(factory.campaign(instance), executor, records)
    decider = load_policy(config, policy)
    decision = driver.begin()
    while decision is not None and (decisions is None or driver.decisions < decisions):
        decision = driver.step(decider.act(decision))
    run.mkdir()
    (run / "work").mkdir()
    write_config(portable(config), run / "config.yaml")
    header = {
        "campaign": factory.name,
        "campaign_version": factory.version,
        "instance": instance,
        "policy": decider.name,
        "policy_source": policy,
        "config_hash": config_hash(config),
        "seed": config.seed,
        "provenance": provenance(),
    }
    with Journal.create(run / "journal.db", header) as journal:
        for record in [*records, *plus]:
            journal.append(record.kind, record.time_s, record.data)
        if decision is None:
            summary = _summary(config, driver, records, header)
            journal.append("ended", executor.now(), summary.to_json())
            (run / "summary.json").write_text(json_text(summary.to_json()))
    return run


def _summary(config: Config, driver: Driver, records: RecordList, header: dict[str, object]) -> Summary:
    outcome = driver.outcome()
    tasks, failures, fallbacks = task_counts(records)
    ledger = allocation_ledger(Timeline.read(records, config.machine.capacity()))
    return Summary(
        campaign=str(header["campaign"]),
        instance=5,
        policy=str(header["policy"]),
        reached=outcome.reached,
        successes=outcome.successes,
        node_seconds=driver.ledger.node_seconds,
        utilisation=0.5,
        decisions=driver.decisions,
        tasks=tasks,
        failures=failures,
        fallbacks=fallbacks,
        seed=config.seed,
        config_hash=str(header["config_hash"]),
        core_seconds=dict(ledger.cores),
        gpu_seconds=dict(ledger.gpus),
    )
