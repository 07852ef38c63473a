import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rlctl
import rlctl.cli.doctor
from rlctl.cli.doctor import Finding
from rlctl.cli.main import app, main

GOOD = """
schema: 1
seed: 0
campaign: {name: block_copolymer}
machine: {cores: 2}
train: {decisions: 1000}
policies: {missing: rules/none.yaml}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD)
    return path


def one_line(arguments: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """Run in this process; the user's mistake must become exit code 2, one line and nothing else."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert out == ""
    assert err.startswith("rlctl: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


@pytest.mark.parametrize("command", ["train", "tune", "evaluate", "benchmark", "steer", "doctor"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: rlctl {command}" in shown.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launch"], "launch"),
        (["evaluate", "CONFIG"], "'--policy'; see rlctl evaluate --help"),
        (["steer", "CONFIG", "--resume"], "no run runs/experiment-N is unfinished"),
        (
            ["evaluate", "CONFIG", "--instances", "0"],
            "'--instances': should be greater than or equal to 1; see rlctl evaluate",
        ),
        (["steer", "CONFIG", "--policy", "feedback", "--run", "x", "--instance", "one"], "--instance"),
        (["train", "CONFIG", "--out", "x", "--log-level", "loud"], "--log-level"),
        (["train", "CONFIG", "--out", "x", "--set", "train.decision=3"], "did you mean 'decisions'"),
        (["train", "CONFIG", "--out", "x", "--set", "train.algorithm=pppo"], "did you mean 'ppo'"),
        (["train", "CONFIG", "--out", "x", "--set", "train=null"], "section train"),
        (
            ["train", "CONFIG", "--out", "x", "--set", "train.judgement_instances=-1"],
            "--set train.judgement_instances: should be greater than or equal to 0",
        ),
        (["judge", "CONFIG"], "'--policy'; see rlctl judge --help"),
        (["judge", "CONFIG", "--policy", "linear", "--instances", "0"], "see rlctl judge --help"),
        (["judge", "CONFIG", "--policy", "linear"], "policy linear is not a saved policy: only trained policies"),
        (["tune", "fedback", "CONFIG", "--out", "x"], "did you mean 'feedback'"),
        (["evaluate", "CONFIG", "--policy", "fedback", "--against", "linear"], "did you mean 'feedback'"),
        (["evaluate", "CONFIG", "--policy", "missing", "--against", "linear"], "policies.missing"),
        (["evaluate", "CONFIG", "--policy", "linear", "--against", "linear"], "two policies share that name"),
        (
            [
                "evaluate",
                "CONFIG",
                "--policy",
                "linear",
                "--against",
                "exponential",
                "--instances",
                "3",
                "--set",
                "evaluate.given=[5,6]",
            ],
            "evaluate.given: gives 2 instances, not 3",
        ),
        (
            ["steer", "CONFIG", "--policy", "feedback", "--run", "x", "--set", "campaign.name=blocks"],
            "unknown campaign",
        ),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    said: str,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    message = one_line([str(config) if a == "CONFIG" else a for a in arguments], capsys)
    assert said in message
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("null", "section benchmark is missing"),
        ("{seds: 3}", "did you mean 'seeds'"),
        ("{tune: [fedback]}", "benchmark.tune.0: unknown rule 'fedback'"),
        ("{variants: {a: {machine.nods: 3}}}", "benchmark.variants.a: machine.nods: unknown key"),
        ("{variants: {a: {machine.cores: 0}}}", "benchmark.variants.a: machine.cores: should be greater"),
        ("{clairvoyant: {rule: linear, options: {tells: 1}}}", "benchmark.clairvoyant.options: campaign.options.tells"),
    ],
)
@pytest.mark.parametrize("command", ["benchmark", "check"])
def test_a_family_that_cannot_be_judged_is_refused_before_anything_is_made(
    command: str,
    section: str,
    said: str,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if command == "check" and section == "null":
        pytest.skip("only the judge needs the section")
    assert said in one_line([command, config, "--set", "policies={}", "--set", f"benchmark={section}"], capsys)
    assert not (tmp_path / "runs").exists()


def test_a_wrong_parameter_of_a_rule_is_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_ = "policies.hand={rule: feedback, parameters: {gian: 1}}"
    message = one_line(
        ["evaluate", config, "--policy", "hand", "--against", "linear", "--set", set_],
        capsys,
    )
    assert "unknown parameter 'gian'" in message
    assert "did you mean 'gain'" in message


def test_doctor_prints_json_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("MPI", False, "no mpiexec", "install one"), Finding("Slurm", None, "not here")]
    monkeypatch.setattr(rlctl.cli.doctor, "diagnose", lambda: findings)
    as_json, for_people = (CliRunner().invoke(app, ["doctor", *more]) for more in (["--json"], []))
    assert json.loads(as_json.stdout)[0] == {
        "name": "MPI",
        "ok": False,
        "detail": "no mpiexec",
        "advice": "install one",
    }
    assert "install one" in for_people.stdout
    assert as_json.exit_code == for_people.exit_code == 1  # something is to be done


def test_far_more_ranks_than_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlctl.cli import train_on_ranks

    monkeypatch.setattr(train_on_ranks, "usable_cores", lambda: (2, ""))
    for name in train_on_ranks._BATCH:
        monkeypatch.delenv(name, raising=False)
    assert train_on_ranks._crowded(8) is None
    assert "99 ranks share 2 cores" in str(train_on_ranks._crowded(99))
    monkeypatch.setenv("PBS_JOBID", "7")
    assert train_on_ranks._crowded(99) is None
