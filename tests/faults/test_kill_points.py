"""kill -9 of a steered campaign at any moment: nothing finished runs again, nothing decided is lost, nothing is left.

``RLCTL_FAULTS=full`` makes hundreds of kills, otherwise a seeded share of them; ``RLCTL_FAULTS_SEED`` repeats a run.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evidence import Found, check, processes_in, read
from machine import FULL, HEAD, NOTHING_SAID, Life, Machine, Row, chance, effects, judged, place, printed_line
from numpy.random import Generator

from rlctl.core.errors import JournalError
from rlctl.executors.event_log import Journal

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes through /proc")

CONFIG = """
schema: 1
seed: 0
campaign: {{name: logged, options: {options}}}
machine: {{cores: {cores}}}
executor: {{options: {{lease_s: {lease_s}}}}}
"""
STEER = ["steer", "config.yaml", "--policy", "remembering", "--run", "run", "--json"]
SHORT = {"parts": 3, "ms": 4.0}
LONG = {"parts": 12, "ms": 15.0, "failing": [5], "cancel_at": 4}
MODULES = ("evidence_campaign", "rlctl.api", "rlctl.steering.control", "rlctl.steering.control_loop", "rlctl.cli.main")
TABLE: list[Row] = []


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("steer"), *MODULES) as machine:
        yield machine
    print("\n" + HEAD, *TABLE, sep="\n")


class Campaign:
    """One campaign, from its first life to its end."""

    def __init__(
        self, machine: Machine, row: Row, name: str, options: dict[str, Any], cores: int = 2, lease_s: float = 0.0
    ) -> None:
        self.machine, self.row, self.options, self.cores = machine, row, options, cores
        self.folder = machine.place(name, CONFIG.format(options=json.dumps(options), cores=cores, lease_s=lease_s))
        row.folder = self.folder
        self.run = self.folder / "here" / "run"
        self.before: list[Any] = []

    @property
    def command(self) -> list[str]:
        """What a user would give: ``--resume`` as soon as there is a run."""
        return [*STEER, "--resume"] if (self.run / "journal.db").exists() else STEER

    def live(self, point: int | None = None, number: int = signal.SIGKILL, cold: bool = False) -> Life:
        self.row.lives += 1
        machine = self.machine
        return (
            machine.cold(self.folder, self.command) if cold else machine.live(self.folder, self.command, point, number)
        )

    def died(self, life: Life, wait: bool = True) -> bool:
        """Take note of a life's end; whether it was a violent one."""
        code = life.end()
        if code == 0:
            return False
        assert code == -signal.SIGKILL, life.errors
        self.row.kills += 1
        if wait:
            self.machine.clean(self.folder, life, self.row)
        self.nothing_lost()
        return True

    def interrupted(self, life: Life, number: int, command: list[str]) -> None:
        """Take note of a life that was interrupted: it says how to go on, unless it had nothing to do yet, or no more.

        Args:
            command: what it was started with.
        """
        code = life.end()
        self.row.kills += 1
        assert processes_in(self.folder) == []
        if code == 130 and life.errors != NOTHING_SAID:
            assert printed_line(life) == self.command
        elif code != 0:  # it may come too late to stop anything
            assert code in (130, -number), f"{place(self.folder)}: {code} {life.errors}"
            unbegun = (self.command, read(self.run)) == (command, self.before)
            assert unbegun or (self.run / "summary.json").exists(), f"{place(self.folder)}: {code} {life.errors}"
        self.nothing_lost()

    def nothing_lost(self) -> None:
        records = read(self.run)
        assert records[: len(self.before)] == self.before, "a record was lost or changed"
        self.before = records

    def finish(self) -> Found:
        """A last life that nobody kills, if the campaign needs it, and the judgement."""
        if not (self.run / "summary.json").exists():
            life = self.live()
            assert life.end() == 0, life.errors
        self.nothing_lost()
        found = check(self.run, self.options, self.cores)
        found.left += self.machine.leftovers(self.folder)
        self.row.add(self.folder, found)
        return found


def moment(random: Generator, cold: bool) -> float:
    """Half of the moments in the start-up, half in the work."""
    start_s = 0.8 if cold else 0.1
    return float(random.uniform(0, start_s) if random.random() < 0.5 else start_s + random.uniform(0, 0.8))


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_killed_at_random_moments_again_and_again(machine: Machine, cold: bool) -> None:
    kind = "controller, random moments" + (", new interpreter" if cold else "")
    kills = (30 if cold else 60) if FULL else (2 if cold else 3)
    with judged(TABLE, kind) as row:
        number = 0
        while row.kills < kills:
            random = chance(0, cold, number)
            options = LONG | ({"stubborn": [2]} if number % 4 == 3 else {})
            campaign = Campaign(machine, row, f"random-{cold}-{number}", options)
            number += 1
            for _ in range(int(random.integers(3, 9))):
                life = campaign.live(cold=cold)
                end_s = time.monotonic() + moment(random, cold)
                while time.monotonic() < end_s and life.alive:
                    time.sleep(0.001)
                if life.alive:
                    life.kill()
                if not campaign.died(life) or row.kills >= kills:
                    break
            campaign.finish()


def test_killed_again_and_again_programs_go_on_and_are_taken_over(machine: Machine) -> None:
    """Under a lease nothing that runs is begun again, however often the controller dies."""
    with judged(TABLE, "controller, random moments, programs go on") as row:
        number = taken_over = 0
        while row.kills < (60 if FULL else 3) or (taken_over == 0 and number < 10):  # a busy machine starts late
            random = chance(8, number)
            campaign = Campaign(machine, row, f"lease-{number}", LONG | {"ms": 80.0}, lease_s=20.0)
            number += 1
            for _ in range(6):
                life = campaign.live()
                time.sleep(moment(random, False))
                if life.alive:
                    life.kill()
                if not campaign.died(life, wait=False):
                    break
            campaign.finish()
            records = read(campaign.run)
            epochs = [record.seq for record in records if record.kind == "epoch"]
            launched = {(r.data["uid"], r.data["attempt"]): r.seq for r in records if r.kind == "launching"}
            ends = [r for r in records if r.kind == "event" and r.data["state"] in ("done", "failed")]
            for end in ends:
                began = launched[end.data["uid"], end.data["attempt"]]
                taken_over += any(began < epoch < end.seq for epoch in epochs)
        assert taken_over > 0


def counted(machine: Machine) -> tuple[int, list[Any]]:
    """Of a short campaign that nobody kills: how many effects it has, and its answers."""
    folder = machine.base / "counted"
    if not folder.exists():
        campaign = Campaign(machine, Row("counted"), "counted", SHORT, cores=1)
        assert campaign.finish().faults == 0
    return effects(folder), answers(folder / "here" / "run")


def answers(run: Path) -> list[Any]:
    return [record.data["action"] for record in read(run) if record.kind == "decision"]


@pytest.mark.quick
def test_killed_at_each_effect_and_resumed(machine: Machine) -> None:
    count, reference = counted(machine)
    points = range(1, count + 1) if FULL else sorted(chance(1).choice(count, 3, replace=False) + 1)
    with judged(TABLE, "controller, right at each effect", effects=count) as row:
        for point in points:
            campaign = Campaign(machine, row, f"effect-{point}", SHORT, cores=1)
            assert campaign.died(campaign.live(int(point))) or effects(campaign.folder) < point
            campaign.finish()
            assert answers(campaign.run) == reference, "an unkilled run decides otherwise"
        assert row.kills > 0


def test_killed_at_each_effect_of_the_resumption(machine: Machine) -> None:
    first = 45  # in the midst of the campaign
    count, reference = counted(machine)
    points = range(1, count + 1, 2) if FULL else sorted(chance(2).choice(count, 2, replace=False) + 1)
    with judged(TABLE, "controller, right at every second effect of --resume", effects=count) as row:
        for point in points:
            campaign = Campaign(machine, row, f"resumption-{point}", SHORT, cores=1)
            assert campaign.died(campaign.live(first))
            campaign.died(campaign.live(int(point)))  # the last points lie beyond its end
            campaign.finish()
            assert answers(campaign.run) == reference, "an unkilled run decides otherwise"


def kill_all(folder: Path) -> int:
    """Controller, supervisor and tasks at once, as when a node dies; stopped first, so that none can tell another."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        while True:
            processes = processes_in(folder)
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number == signal.SIGSTOP or not processes:
                break
    return len(processes)


def test_everything_dies_at_once(machine: Machine) -> None:
    with judged(TABLE, "controller, supervisor and tasks at once") as row:
        number = 0
        while row.kills < (40 if FULL else 1):
            random = chance(3, number)
            campaign = Campaign(machine, row, f"node-{number}", LONG | {"stubborn": [2]})
            number += 1
            for _ in range(4):
                life = campaign.live()
                time.sleep(random.uniform(0.05, 0.6))
                life.killed_s = time.monotonic()
                kill_all(campaign.folder)
                if not campaign.died(life):
                    break
            campaign.finish()


def supervisor_of(life: Life, folder: Path) -> int | None:
    for pid in processes_in(folder):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"rlctl.executors.local.supervisor" in words and pid != life.pid:
                return pid
    return None


@pytest.mark.parametrize("wait_s", [None, 0.0, 0.4], ids=["alone", "both", "later"])
def test_the_supervisor_dies_too(machine: Machine, wait_s: float | None) -> None:
    """Without a supervisor nobody ends the tasks; a controller soon starts another, a resumption ends what it finds."""
    kind = {
        None: "supervisor alone",
        0.0: "supervisor, then at once the controller",
        0.4: "supervisor, controller 0.4 s later",
    }
    with judged(TABLE, kind[wait_s]) as row:
        for number in range(10 if FULL else 1):
            random = chance(4, number)
            options = LONG | {"ms": 60.0, "stubborn": [1]}
            campaign = Campaign(machine, row, f"supervisor-{wait_s}-{number}", options)
            life = campaign.live()
            while (
                not (supervisor := supervisor_of(life, campaign.folder))
                or not (campaign.run / "work" / "evidence").exists()
            ):
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.3))
            os.kill(supervisor, signal.SIGKILL)
            if wait_s is None:
                row.kills += 1
                assert life.end() == 0, life.errors
            else:
                time.sleep(wait_s)
                life.kill()
                assert campaign.died(life, wait=wait_s > 0)
            campaign.finish()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_each_effect_the_printed_line_goes_on(machine: Machine, number: signal.Signals) -> None:
    count, _ = counted(machine)
    points = range(1, count + 1, 3) if FULL else sorted(chance(5, number).choice(count, 1, replace=False) + 1)
    with judged(TABLE, f"{number.name} right at every third effect") as row:
        for point in points:
            campaign = Campaign(machine, row, f"interrupt-{number}-{point}", SHORT, cores=1)
            campaign.interrupted(campaign.live(int(point), number), number, STEER)
            campaign.finish()


def test_interrupted_at_random_moments_of_a_new_interpreter(machine: Machine) -> None:
    with judged(TABLE, "SIGINT or SIGTERM, new interpreter") as row:
        for number in range(24 if FULL else 1):
            random = chance(7, number)
            campaign = Campaign(machine, row, f"interrupt-{number}", LONG)
            for sent in random.choice([signal.SIGINT, signal.SIGTERM], 2):
                command = campaign.command
                life = campaign.live(cold=True)
                end_s = time.monotonic() + moment(random, True)
                while time.monotonic() < end_s and life.alive:
                    time.sleep(0.001)
                life.kill(sent)  # a zombie does not mind
                campaign.interrupted(life, sent, command)
                if (campaign.run / "summary.json").exists():
                    break
            campaign.finish()


def test_a_torn_journal_is_a_whole_prefix_or_refused_in_one_line(machine: Machine) -> None:
    """The loss of power: the end of the write-ahead log never reached the disk."""
    with judged(TABLE, "all at once, and the log cut at a random byte") as row:
        for number in range(30 if FULL else 1):
            random = chance(6, number)
            campaign = Campaign(machine, row, f"torn-{number}", LONG)
            life = campaign.live()
            while not (campaign.run / "work" / "evidence").exists():
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.3))
            life.killed_s = time.monotonic()
            kill_all(campaign.folder)
            assert campaign.died(life)
            log = campaign.run / "journal.db-wal"
            whole = campaign.before
            if log.exists():
                os.truncate(log, int(random.integers(0, log.stat().st_size + 1)))
            try:
                with Journal.open(campaign.run / "journal.db") as journal:
                    left = journal.records()
            except JournalError as refused:
                row.found.left += ["a complaint of many lines"] * ("\n" in str(refused))
                continue
            assert left == whole[: len(left)]
            life = campaign.live()
            assert life.end() == 0, life.errors
            summary = json.loads((campaign.run / "summary.json").read_text())
            assert summary["reached"]
            assert [r.data["number"] for r in read(campaign.run) if r.kind == "decision"] == list(
                range(summary["decisions"])
            )
            row.add(campaign.folder, Found(left=campaign.machine.leftovers(campaign.folder)))
