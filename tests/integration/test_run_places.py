"""``--run`` and the run folders of all commands mean what the system takes the path for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from steering_process import Steering

MOUNTED = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$1" && shift && "$@" && ls "$run"', "sh"]


def call(steering: Steering, *arguments: str, before: list[str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*(before or []), sys.executable, "-m", "rlctl", *arguments],
        env=steering.environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_TURN = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO
from rlctl.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["rlctl", *arguments]
    with redirect_stdout(StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    print(json.dumps(said.getvalue()))
"""


def call_in_turn(steering: Steering, *commands: list[str], cwd: Path) -> list[str]:
    """What several commands print, which share an interpreter: its imports take longer than they do."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        env=steering.environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_run_is_where_its_path_leads_for_every_command(steering: Steering, tmp_path: Path) -> None:
    steering.configure(parts=2)
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "through").symlink_to("a/deep")
    (tmp_path / "linked").symlink_to("b")
    places = {
        "linked": "b",
        "through/../run": "a/run",
        os.fsdecode(b"odd \n\xff/"): os.fsdecode(b"odd \n\xff"),
        "é" * 127: "é" * 127,
        "not/yet/": "not/yet",
    }
    for given, there in places.items():
        steer = ["steer", str(steering.config), "--policy", "cycling", "--run", given]
        summary = json.loads(call(steering, *steer, "--json", cwd=tmp_path))
        assert summary["reached"], given
        assert (tmp_path / there / "journal.db").is_file(), given
        looks = [["status", given, "--json"], ["status", given], ["trace", given], ["report", given, "--no-rules"]]
        status, shown, *_ = call_in_turn(steering, *looks, cwd=tmp_path)
        assert json.loads(status)["successes"] == summary["successes"]
        assert "goal reached" in shown
        call(steering, *steer, "--resume", cwd=tmp_path)
        assert {"trace.json", "report.html", "summary.json"} <= set(os.listdir(tmp_path / there))
    call(steering, "steer", str(steering.config), "--policy", "cycling", "--run", ".", cwd=tmp_path / "here")
    assert (tmp_path / "here" / "journal.db").is_file()


@pytest.mark.skipif(
    subprocess.run([*MOUNTED[:3], "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False).returncode != 0,
    reason="file systems cannot be mounted here",
)
def test_an_empty_volume_is_filled(steering: Steering, tmp_path: Path) -> None:
    steering.configure(parts=2)
    (tmp_path / "volume").mkdir()
    steering.environment["run"] = str(tmp_path / "volume")
    arguments = ["steer", str(steering.config), "--policy", "cycling", "--run", str(tmp_path / "volume")]
    said = call(steering, *arguments, before=[*MOUNTED, str(tmp_path / "volume")])
    assert "journal.db" in said.splitlines()
    assert os.listdir(tmp_path / "volume") == []  # all of it was in the volume


def test_a_training_saves_its_policy_where_its_folder_is(steering: Steering, tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "through").symlink_to("a/deep")
    steering.config.write_text(
        "schema: 1\nseed: 0\ncampaign: {name: ensemble, options: {workload: {tasks: [4, 6]}}}\nmachine: {nodes: 4}\n"
        "train: {algorithm: ppo, decisions: 64, options: {n_steps: 32, batch_size: 32}}\n"
    )
    said = call(steering, "train", str(steering.config), "--out", "through/../run", "--json", cwd=tmp_path)
    assert json.loads(said)["policy"] == "through/../run/policy"
    assert (tmp_path / "a" / "run" / "policy" / "manifest.json").is_file()
    assert not (tmp_path / "run").exists()
