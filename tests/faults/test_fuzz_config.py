"""Spoiled configurations: whatever stands in the file, the answer is "ok" or one line that names the place."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import forms
import pytest
import yaml
from mutations import Mutant, mutant

import rlctl
from rlctl.config.load import load_rule_file
from rlctl.config.schema import Config
from rlctl.core.errors import RlctlError
from rlctl.plugins.preflight import check_campaign, check_policy
from rlctl.plugins.registry import make_rule
from rlctl.plugins.sample_evaluation import sample_evaluation

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
PROGRAM = """
seed: 1
program:
  command: python sim.py {x} {kind}
  before:
    - "true"
  environment:
    MODE: fast
  templates:
    in.txt: input.txt
  copy:
    - sim.py
  keep: failed
  results:
    energy:
      regex: energy = (.*)
      take: last
    steps:
      json: out.json
      path: md.steps
  progress:
    read:
      table: log.csv
      column: 1
    every_s: 2.0
  failures:
    diverged:
      exit_codes: [3]
      then: infeasible
    timeout:
      then: infeasible
  resources:
    ranks: [1]
    memory_mb: 100
  walltime_s: 60
campaign:
  name: search
  options:
    parameters:
      x:
        low: 0.5
        high: 10
        log: true
      kind:
        choices: [fcc, bcc]
    constraints:
      - x < 9
    starts:
      - {x: 1.0, kind: bcc}
    objective:
      minimize: energy + steps
    until:
      evaluations: 10
machine:
  nodes: 1
  cores: 2
"""
PROGRAMS = """
seed: 2
folder: .
programs:
  cheap:
    command: python sim.py {x} {level}
    copy: sim.py
    results:
      energy:
        labelled: results.out
    walltime_s: 10
  dear:
    command: python sim.py {x} {level} {n}
    templates:
      - in.txt
    delimiters: ["<<", ">>"]
    results:
      energy:
        npz: out.npz
        index: [0, 1]
    walltime_s: 100
campaign:
  name: search
  options:
    parameters:
      x:
        low: 0
        high: 10
      n:
        low: 1
        high: 5
        integer: true
    objective:
      minimize: energy
    stages:
      - {name: cheap, program: cheap, values: {level: 1}}
      - {name: full, program: dear, values: {level: 2}}
    counts: full
    until:
      value: 0.1
      node_hours: 1
machine:
  cores: 2
"""
SEARCHES = {Path("searches") / "program.yaml": PROGRAM, Path("searches") / "programs.yaml": PROGRAMS}
SPOILED = [*SHIPPED, *SEARCHES]
FULL = forms.full("FAULTS")
MUTATIONS = 10_000 if FULL else 600
SEED = int(os.environ.get("RLCTL_FAULTS_SEED", "1"))
HANGS_S = 300.0


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of what is shipped; nothing but the spoiled file may have changed in the end, and nothing be there."""
    copy = tmp_path / "configs"
    shutil.copytree(CONFIGS, copy, ignore=shutil.ignore_patterns("model.zip"))
    (copy / "searches").mkdir()
    for name, text in SEARCHES.items():
        (copy / name).write_text(text.lstrip())
    (copy / "searches" / "sim.py").write_text("")
    (copy / "searches" / "in.txt").write_text("{x}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    # What is installed stays the same meanwhile, and half of the time goes into looking for it.
    monkeypatch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))
    before = _files(tmp_path)
    yield copy
    assert _files(tmp_path) == before


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml"} | {
        path: -1 for path in folder.rglob("*") if path.suffix == ".yaml" or path.is_dir()
    }


def carry(path: Path, game: Config | None) -> None:
    """As far as it goes without running anything: an experiment, or a rule file in an experiment."""
    if game is None:
        config = rlctl.load_config(path)
        rlctl.check(config)
        sample_evaluation(config)
        return
    rule = load_rule_file(path)
    with rule.source.located():
        check_policy(game, check_campaign(game), make_rule(rule, "rule", ()), ("rule",))


@contextmanager
def no_hang(path: Path) -> Iterator[None]:
    """Ends what would never end; on any machine, the rest takes much less."""

    def hangs(*_: object) -> NoReturn:
        raise AssertionError(f"{path}: no answer within {HANGS_S:g} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def judge(path: Path, spoiled: Mutant, game: Config | None) -> str:
    """The outcome, if it is one that may be."""
    try:
        with no_hang(path):
            carry(path, game)
        outcome = "accepted"
        assert not spoiled.wrong, "accepted"
    except RlctlError as error:
        message = str(error)
        outcome = "refused"
        assert len(message.splitlines()) == 1, message
        assert len(message) < 1500, message
        if spoiled.key is None:
            # What is said of another file than this one, of a policy that it names, is as good.
            outcome += ", line" if f"{path}:" in message else ", file"
            assert str(path.parent) in message, message
        else:
            assert message.startswith(f"{path}") or str(path.parent) in message, message
            right = f"{path}:{spoiled.line}: " in message
            outcome += ", line of the key" if right else ", another key's line" if f"{path}:" in message else ", file"
            if spoiled.wrong:
                assert right, (message, spoiled.line)
                assert all(word in message for word in spoiled.words), message
    return outcome


def test_a_spoiled_configuration_is_used_or_refused_in_one_line(
    configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    game = rlctl.load_config(configs / "annealing.yaml")
    originals = {name: (configs / name).read_bytes() for name in SPOILED}
    trees = {name: yaml.safe_load(data) for name, data in originals.items()}
    table: Counter[tuple[str, str]] = Counter()
    # Experiments say more than rule files, so most mutants are theirs.
    names = [name for name in SPOILED for _ in range(1 if "tuned" in name.parts else 25 if name in SEARCHES else 5)]
    for number in range(MUTATIONS):
        choice = random.Random(SEED * 1_000_003 + number)
        name = choice.choice(names)
        spoiled = mutant(originals[name], trees[name], choice)
        path = configs / name
        path.write_bytes(spoiled.data)
        try:
            outcome = judge(path, spoiled, game if "rule" in trees[name] else None)
        except BaseException as error:
            kept = f"mutation {number} of {name} ({spoiled.kind}, key {spoiled.key}, line {spoiled.line})"
            raise AssertionError(f"{kept}: {error!r}\n{spoiled.data[:3000].decode(errors='replace')}") from error
        finally:
            path.write_bytes(originals[name])
        table[spoiled.kind, outcome] += 1
    outcomes = sorted({outcome for _, outcome in table})
    with capsys.disabled():
        print(f"\n{MUTATIONS} mutations of {len(SPOILED)} files, seed {SEED}")
        print(f"{'':18}" + "".join(f"{outcome:>28}" for outcome in outcomes))
        for kind in sorted({kind for kind, _ in table}):
            print(f"{kind:18}" + "".join(f"{table[kind, outcome]:28}" for outcome in outcomes))
    assert sum(n for (_, outcome), n in table.items() if outcome == "accepted") < MUTATIONS / 2


def test_every_shipped_configuration_passes() -> None:
    for name in SHIPPED:
        if "rule" not in yaml.safe_load((CONFIGS / name).read_text()):
            rlctl.check(rlctl.load_config(CONFIGS / name))
