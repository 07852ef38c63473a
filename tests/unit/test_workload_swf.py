"""Logs in the Standard Workload Format."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workloads.logged import LoggedJob, usable
from rlctl_envs.ensemble.workloads.swf import read_swf

GOOD = "1 0 5 100 4 -1 512 8 200 1024 1 3 2 7 1 -1 -1 -1"


def test_every_field_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.swf").write_text("7 10 5 100.5 4 90 512 8 200 1024 1 3 2 9 6 1 5 30\n")
    (job,) = read_swf(tmp_path / "a.swf")
    assert job == LoggedJob(submit_s=10.0, run_s=100.5, ranks=4, estimate_s=200.0, user=3, application=9)


def test_what_is_unknown_is_filled_in(tmp_path: Path) -> None:
    lines = ["1 0 -1 9 -1 -1 -1 8 -1 2048 -1 4 -1 -1 -1 -1 -1 -1", "2 0 -1 9 4 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1"]
    (tmp_path / "a.swf").write_text("\n".join(lines))
    asked, had = read_swf(tmp_path / "a.swf")
    assert (asked.ranks, asked.estimate_s, asked.kind) == (8, None, 4)
    assert (had.ranks, had.estimate_s, had.kind) == (4, None, 0)


def test_what_did_not_run_and_parts_of_jobs_are_left_out(tmp_path: Path) -> None:
    tails = ["1 -1", "0 -1", "2 5", "3 5", "4 5"]  # status, preceding job
    lines = [GOOD, "2 1 -1 -1 4" + " -1" * 13, "3 1 -1 0 4" + " -1" * 13, "4 1 -1 9 -1" + " -1" * 13]
    lines += [f"5 2 0 10 4 -1 -1 4 -1 -1 {tail.split()[0]} 1 1 1 1 -1 -1 -1" for tail in tails]
    (tmp_path / "a.swf").write_text("\n".join(lines) + "\n")
    jobs = read_swf(tmp_path / "a.swf")
    assert [job.submit_s for job in jobs] == [0.0, 2.0, 2.0]  # of GOOD, and of the two whole ones with number 5
    assert all(map(usable, jobs))


def test_comments_are_skipped_whatever_their_letters(tmp_path: Path) -> None:
    comments = ["; Version: 2.2", "; Note: J\xfcrgen", ";  Note: and Uri: both", ";"]
    (tmp_path / "a.swf").write_bytes("\n".join([*comments, GOOD]).encode("latin-1"))
    assert len(read_swf(tmp_path / "a.swf")) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD.replace("100", "1OO"), "a.swf, line 2: field 4 .run time. is '1OO', which is no number"),
        (GOOD.replace("100", "nan"), "line 2: field 4 .run time. is 'nan'"),
        (GOOD.replace("100", "1e999"), "line 2: field 4 .run time. is '1e999'"),
        (GOOD.replace(" 4 ", " 4.5 "), "line 2: field 5 .processors. is '4.5', which is no whole number"),
        (GOOD + " 1", "line 2: 19 fields"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_its_value(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.swf").write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(ConfigError, match=said) as caught:
        read_swf(tmp_path / "a.swf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", ["cut", "flipped", "not zipped"])
def test_a_damaged_compressed_log_is_refused_in_one_line(tmp_path: Path, harm: str) -> None:
    whole = bytearray(gzip.compress("\n".join([GOOD] * 2000).encode()))
    if harm == "flipped":
        whole[12:40] = b"\xff" * 28
    path = tmp_path / "a.swf.gz"
    path.write_bytes({"cut": whole[:-20], "flipped": whole, "not zipped": GOOD.encode()}[harm])
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_swf(path)
    assert "\n" not in str(caught.value)
