"""A disk that fills while a real campaign is steered: it stops in one line, nothing is lost, and it goes on later."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill
from steering_process import Steering, answers, cycle, finished


@pytest.fixture
def steering(tmp_path: Path, disk: Path) -> Iterator[Steering]:
    steering = Steering(tmp_path)
    steering.run = disk / "run"
    yield steering
    steering.close()


def test_a_campaign_outlives_a_full_disk(steering: Steering, disk: Path) -> None:
    steering.configure(parts=6, wait=True)
    process = steering.start()
    steering.reach(process, 2)
    assert process.poll() is None
    filler = fill(disk)
    (steering.run / "work" / "go").touch()
    out, err = process.communicate(timeout=90)
    assert process.returncode == 2, err
    assert out == ""
    said = [line for line in err.splitlines() if not line.startswith("WARNING")]
    assert len(said) == 1, err
    assert said[0].startswith(f"rlctl: {steering.run}")
    assert "free some space" in said[0]
    assert "resume" in said[0]
    assert not steering.alive()

    before = steering.records()
    code, out, err = steering.finish("--resume")  # still full
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    assert "free some space" in err
    filler.unlink()
    code, out, err = steering.finish("--resume")
    assert code == 0, err
    after = steering.records()
    assert after[: len(before)] == before
    assert answers(after) == cycle(len(answers(after)))
    begun = Counter(steering.begun())
    assert all(begun[uid] <= 1 for uid in finished(before))


def test_a_run_that_finds_no_space_leaves_nothing(steering: Steering, disk: Path) -> None:
    steering.configure(parts=2)
    filler = fill(disk)
    code, out, err = steering.finish()
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert "space" in err
    assert list(disk.iterdir()) == [filler]


def test_a_disk_that_is_read_only_is_found_out_at_once(steering: Steering, disk: Path) -> None:
    steering.configure(parts=2)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, out, err = steering.finish()
    assert (code, out) == (2, ""), err
    assert err == f"rlctl: {disk}: cannot be written (Read-only file system): choose a place that can be written\n"
