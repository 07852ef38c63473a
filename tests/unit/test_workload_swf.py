"""Logs in the Standard Workload Format, read and written."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workloads.logged import LoggedJob, usable
from rlctl_envs.ensemble.workloads.swf import SwfLog, read_swf, write_swf

GOOD = "1 0 5 100 4 -1 512 8 200 1024 1 3 2 7 1 -1 -1 -1"

names = st.from_regex(r"[A-Z][A-Za-z]{0,12}", fullmatch=True)
words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=20)
seconds = st.floats(0.0, 1e9)
numbers = st.integers(-1, 10**9)
some = st.integers(1, 10**6)
positive = st.floats(1e-3, 1e9)

jobs = st.builds(
    LoggedJob,
    submit_s=seconds,
    run_s=positive,
    ranks=some,
    requested_ranks=some,
    estimate_s=st.none() | positive,
    memory_mb=st.none() | positive,
    status=st.sampled_from([-1, 0, 1, 5]),
    user=numbers,
    group=numbers,
    application=numbers,
    queue=numbers,
    number=numbers,
    after=st.none() | some,
    think_s=seconds,
)


@given(st.dictionaries(names, st.lists(words, min_size=1, max_size=3)), st.lists(jobs, min_size=1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_again(header: dict[str, list[str]], found: list[LoggedJob], zipped: bool) -> None:
    said = {key: "\n".join(lines) for key, lines in header.items()}
    log = SwfLog(said, tuple(sorted(found, key=lambda job: job.submit_s)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("a.swf.gz" if zipped else "a.swf")
        write_swf(path, log)
        assert read_swf(path) == log


def test_every_field_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.swf").write_text("7 10 5 100.5 4 90 512 8 200 1024 1 3 2 9 6 1 5 30\n")
    (job,) = read_swf(tmp_path / "a.swf").jobs
    assert job == LoggedJob(
        submit_s=10.0,
        run_s=100.5,
        ranks=4,
        requested_ranks=8,
        estimate_s=200.0,
        memory_mb=0.5,
        status=1,
        user=3,
        group=2,
        application=9,
        queue=6,
        number=7,
        after=5,
        think_s=30.0,
    )


def test_what_is_unknown_is_filled_in(tmp_path: Path) -> None:
    lines = ["1 0 -1 9 -1 -1 -1 8 -1 2048 -1 4 -1 -1 -1 -1 -1 -1", "2 0 -1 9 4 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1"]
    (tmp_path / "a.swf").write_text("\n".join(lines))
    asked, had = read_swf(tmp_path / "a.swf").jobs
    assert (asked.ranks, asked.requested_ranks, asked.memory_mb, asked.estimate_s, asked.after) == (
        8,
        8,
        2.0,
        None,
        None,
    )
    assert (had.ranks, had.requested_ranks, had.memory_mb, had.think_s) == (4, 4, None, 0.0)
    assert (asked.asked_s, asked.kind, had.kind) == (9.0, 4, 0)


def test_what_did_not_run_and_parts_of_jobs_are_counted_and_left_out(tmp_path: Path) -> None:
    tails = ["1 -1", "0 -1", "2 5", "3 5", "4 5"]  # status, preceding job
    lines = [GOOD, "2 1 -1 -1 4" + " -1" * 13, "3 1 -1 0 4" + " -1" * 13, "4 1 -1 9 -1" + " -1" * 13]
    lines += [f"5 2 0 10 4 -1 -1 4 -1 -1 {tail.split()[0]} 1 1 1 1 -1 -1 -1" for tail in tails]
    (tmp_path / "a.swf").write_text("\n".join(lines) + "\n")
    log = read_swf(tmp_path / "a.swf")
    assert ([job.number for job in log.jobs], log.dropped, log.parts) == ([1, 5, 5], 3, 3)
    assert all(map(usable, log.jobs))


def test_comments_with_keys_are_the_header_whatever_their_letters(tmp_path: Path) -> None:
    comments = [
        "; Version: 2.2",
        ";Computer:  IBM SP2 ",
        "; Note: J\xfcrgen",
        ";  Note: and Uri: both",
        "; not one: key",
        ";",
    ]
    text = "\n".join([*comments, GOOD])
    (tmp_path / "a.swf").write_bytes(text.encode("latin-1"))
    header = read_swf(tmp_path / "a.swf").header
    assert header == {"Version": "2.2", "Computer": "IBM SP2", "Note": "J\ufffdrgen\nand Uri: both"}


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


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_swf(tmp_path / "none" / "a.swf", SwfLog({}, (LoggedJob(0.0, 1.0, 1),)))


def test_numbers_survive_as_they_are(tmp_path: Path) -> None:
    log = SwfLog({}, (LoggedJob(0.1, math.pi, 3, estimate_s=1e-3, memory_mb=1 / 3),))
    write_swf(tmp_path / "a.swf", log)
    assert read_swf(tmp_path / "a.swf") == log
