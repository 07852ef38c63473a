"""What a campaign left behind, judged by its journal, by its programs' own log, and by the system."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence_campaign import EVIDENCE, Logged, Remembering

from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import event_from_json
from rlctl.executors.event_log import Journal

FINAL = ("done", "failed", "canceled")
RUN_FILES = {"config.yaml", "journal.db", "lock", "summary.json", "tensorboard", "work"}


@dataclass
class Found:
    """Counts over one campaign or many; all but the first two must be 0."""

    finished: int = 0
    decisions: int = 0
    again: int = 0
    wrong: int = 0
    processes: int = 0
    left: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def faults(self) -> int:
        return self.again + self.wrong + self.processes + len(self.left)


def processes_in(folder: Path) -> list[int]:
    """Living processes that work in a folder: controllers, reapers, tasks and whatever those have started."""
    found = []
    for name in os.listdir("/proc"):
        try:
            inside = name.isdigit() and Path(os.readlink(f"/proc/{name}/cwd")).is_relative_to(folder)
        except OSError:  # a zombie, or somebody else's
            continue
        if inside and int(name) != os.getpid():
            found.append(int(name))
    return found


def read(run: Path) -> list[Record]:
    """The records; none if the run has not begun."""
    if not (run / "journal.db").exists():
        return []
    with Journal.open(run / "journal.db", read_only=True) as journal:
        return journal.records()


def check(run: Path, options: Mapping[str, Any], cores: int) -> Found:
    """Everything about a campaign that has ended."""
    with Journal.open(run / "journal.db") as journal:  # takes the lock, checks that the file is whole
        records = journal.records()
    found = Found(processes=len(processes_in(run.parent)))
    successes = _decisions(records, options, cores, found)
    states = _tasks(run, records, found)
    ended = [record.data for record in records if record.kind == "ended"]
    assert len(ended) == 1, f"ended {len(ended)} times"
    summary = json.loads((run / "summary.json").read_text())
    assert summary == ended[0]
    assert summary["decisions"] == found.decisions
    assert summary["successes"] == successes >= options["parts"]
    assert summary["tasks"] == dict(states)
    found.left += sorted(set(os.listdir(run)) - RUN_FILES) + [path.name for path in (run / "work").glob("*.part.*")]
    found.left += [f"no {name}" for name in sorted(RUN_FILES - set(os.listdir(run)))]
    return found


def _decisions(records: list[Record], options: Mapping[str, Any], cores: int, found: Found) -> int:
    """Play the records to a new campaign and a new policy: it must say what was recorded, each number once."""
    campaign, policy = Logged(options), Remembering()
    campaign.begin(Capacity(1, cores))
    policy.reset(0)
    for record in records:
        if record.kind == "decision":
            decision = campaign.decision()
            if decision is None or record.data["number"] != found.decisions:
                found.wrong += 1
                continue
            decision.number = found.decisions
            action = policy.act(decision)
            found.wrong += action.tolist() != record.data["action"]
            campaign.apply(action)
            found.decisions += 1
        elif record.kind == "event" and not campaign.outcome().ended:
            campaign.on_event(event_from_json(record.data))
    assert campaign.outcome().ended
    return campaign.outcome().successes


def _tasks(run: Path, records: list[Record], found: Found) -> Counter[str]:
    """Journal against the programs' log; returns the tasks by final state."""
    launched: set[tuple[str, int]] = set()
    final: dict[str, tuple[int, str]] = {}
    states: Counter[str] = Counter()
    for record in records:
        uid = record.data.get("uid")
        if record.kind == "launching":
            found.again += uid in final
            assert (uid, record.data["attempt"]) not in launched, "an attempt was launched twice"
            launched.add((uid, record.data["attempt"]))
        elif record.kind == "event" and record.data["state"] in FINAL:
            found.again += uid in final
            final[uid] = (record.data["attempt"], record.data["state"])
            states[record.data["state"]] += 1
    log = [line.split() for line in (run / "work" / EVIDENCE).read_text().splitlines()]
    assert "twice" not in {what for what, *_ in log}, "two attempts of a task were alive at once"
    begun = Counter((uid, int(attempt)) for what, uid, attempt, _ in log if what == "begin")
    ended = {(uid, int(attempt)) for what, uid, attempt, _ in log if what == "end"}
    assert set(begun) <= launched, "a task ran of which the journal does not know"
    found.again += sum(times - 1 for times in begun.values())
    found.again += sum(uid in final and attempt > final[uid][0] for uid, attempt in begun)
    for uid, (attempt, state) in final.items():
        assert state == "canceled" or (uid, attempt) in ended, f"{uid} is {state}, but did not come to its end"
    found.finished = len(final)
    return states
