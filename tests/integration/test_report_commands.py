"""Every command that a report prints runs as it stands, whatever kind of run it is of."""

import html
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import queue_config, simulated_run
from steering_process import Steering, await_

from rlctl.config.load import load_config


def rlctl(arguments: list[str], environment: dict[str, str] | None) -> None:
    command = [sys.executable, "-m", "rlctl", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (arguments, done.stderr)


def printed(run: Path, environment: dict[str, str] | None = None, more: str = "--no-rules") -> dict[str, list[str]]:
    page = run.parent / "page.html"
    rlctl(["report", str(run), "--out", str(page), more], environment)
    found = re.findall(r'<p class="what">([^<]*)</p>\s*<pre>(.*?)</pre>', page.read_text(), re.DOTALL)
    return {what: shlex.split(html.unescape(command)) for what, command in found}


def run_all(commands: dict[str, list[str]], environment: dict[str, str] | None = None) -> None:
    for program, *arguments in commands.values():
        assert program == "rlctl"
        rlctl(arguments, environment)


@pytest.mark.parametrize("policy", ["cycling", "breaks", "file", "random"])
def test_a_killed_run_an_ended_one_and_the_same_again(steering: Steering, policy: str, tmp_path: Path) -> None:
    steering.run = tmp_path / "a run's folder"
    if policy == "file":
        policy = str(tmp_path / "my rule.yaml")
        Path(policy).write_text("schema: 1\nrule: cycling\nparameters: {fails_at: 2}\n")
    steering.configure(parts=3, wait=True)
    process = steering.start(policy=policy)
    steering.reach(process, 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (steering.run / "work" / "go").touch()
    await_(lambda: not steering.alive())
    killed = printed(steering.run, steering.environment)
    assert list(killed) == ["resume this campaign", "repeat this campaign in a new folder", "write this report"]
    again = killed.pop("repeat this campaign in a new folder")
    run_all(killed, steering.environment)
    assert again[-1] == f"{steering.run}-again"
    steering.configure(parts=2)
    steering.run = tmp_path / "ended"
    assert steering.finish(policy=policy)[0] == 0
    for _ in range(2):  # the folder of the first time is there then
        ended = printed(steering.run, steering.environment)
        assert list(ended) == ["repeat this campaign in a new folder", "write this report"]
        run_all(ended, steering.environment)
    assert (tmp_path / "ended-again" / "summary.json").exists()
    assert (tmp_path / "ended-again2" / "summary.json").exists()


def test_the_comparison_leaves_out_the_policy_itself(tmp_path: Path) -> None:
    rule = tmp_path / "narrow.yaml"
    rule.write_text("schema: 1\nrule: lpt\nparameters: {most: 0.1}\n")
    config = queue_config(tmp_path)
    config.source.path.write_text(config.source.path.read_text() + "evaluate: {instances: 2}\n")
    config = load_config(config.source.path)
    for number, (policy, against) in enumerate(
        {"equal": ["wide"], "lpt": ["wide", "equal"], str(rule): ["wide", "equal"]}.items()
    ):
        commands = printed(simulated_run(tmp_path / f"run{number}", config, policy), more="--instances=1")
        compared = commands["compare policies on held-out instances"]
        assert compared[3:] == ["--policy", policy, "--against", *against]
        run_all({"compared": compared})


def test_what_cannot_be_done_again_is_not_advised(tmp_path: Path) -> None:
    rule = tmp_path / "gone.yaml"
    rule.write_text("schema: 1\nrule: lpt\nparameters: {most: 0.1}\n")
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), str(rule), decisions=2)
    rule.unlink()
    assert list(printed(run)) == ["write this report"]
    run_all(printed(run))
