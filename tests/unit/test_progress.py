import io
import time

import pytest

from rlctl.monitoring import progress as module
from rlctl.monitoring.progress import Bar, Lines, Silent, progress


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_stream_decides_the_kind() -> None:
    assert isinstance(progress(stream=io.StringIO()), Lines)
    assert isinstance(progress(stream=Terminal()), Bar)
    assert isinstance(progress(quiet=True, stream=Terminal()), Silent)


def test_short_work_says_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("tuning", 10, "generations")
    clock.now_s = 1.5
    lines.advance(10)
    lines.stop()
    assert stream.getvalue() == ""


def test_lines_come_after_two_seconds_and_then_every_ten(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("training", 3000, "decisions")
    for second in range(1, 31):
        clock.now_s = float(second)
        lines.advance(100, "going well")
    lines.stop()
    said = stream.getvalue().splitlines()
    assert said == [
        "training: 200 of 3,000 decisions, 100/s, going well",
        "training: 1,200 of 3,000 decisions, 100/s, 18 s left, going well",
        "training: 2,200 of 3,000 decisions, 100/s, 8 s left, going well",
        "training: 3,000 of 3,000 decisions, 100/s, took 30 s, going well",
    ]


def test_the_end_is_said_once(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("training", 100, "decisions")
    clock.now_s = 30.0
    lines.advance(100, "well done")
    lines.stop()
    assert stream.getvalue().splitlines() == ["training: 100 of 100 decisions, 3.3/s, took 30 s, well done"]


def test_what_was_done_earlier_does_not_count_as_speed(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("training", 3000, "decisions", done=2000)
    for clock.now_s in (5.0, 10.0, 15.0):
        lines.advance(100)
    assert stream.getvalue().splitlines() == [
        "training: 2,100 of 3,000 decisions, 20/s",
        "training: 2,300 of 3,000 decisions, 20/s, 35 s left",
    ]


def test_no_time_is_promised_before_the_pace_is_known(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("comparing policies", 100, "campaigns")
    clock.now_s = 20.0  # processes start
    lines.advance(1)
    clock.now_s = 31.0
    lines.advance(11)
    assert stream.getvalue().splitlines() == [
        "comparing policies: 1 of 100 campaigns, 3/min",
        "comparing policies: 12 of 100 campaigns, 0.39/s, 1:28 min left",
    ]


@pytest.mark.parametrize("done", [0.0, 40.0])
def test_the_seconds_of_an_allocation_are_left_that_are_not_used(done: float, clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("steering", 120, "s of the allocation", done)
    clock.now_s = 2.0
    lines.advance(4, "2 cores busy")  # starting up was charged as well
    clock.now_s = 25.0
    lines.advance(23)
    lines.stop()
    assert stream.getvalue().splitlines() == [
        f"steering: {done + 4:.0f} of 120 s of the allocation, {module.format_duration(116 - done)} left, 2 cores busy",
        f"steering: {done + 27:.0f} of 120 s of the allocation, {module.format_duration(93 - done)} left, 2 cores busy",
        f"steering: {done + 27:.0f} of 120 s of the allocation, 2 cores busy",
    ]


def test_an_allocation_without_end_has_none(clock: Clock) -> None:
    for stream in (io.StringIO(), Terminal()):
        shown = Bar(stream) if stream.isatty() else Lines(stream)
        shown.start("steering", float("inf"), "s of the allocation")
        clock.now_s += 10.0
        shown.advance(10, "2 cores busy")
        shown.stop()
        assert "2 cores busy" in stream.getvalue()
        if isinstance(shown, Lines):
            assert stream.getvalue().splitlines()[0] == "steering: 10 s of the allocation, 2 cores busy"


@pytest.mark.parametrize("kind", [Bar, Lines])
def test_something_shows_though_nothing_is_told(kind: type[Bar | Lines], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.05)
    stream = Terminal()
    shown = kind(stream)
    shown.start("training", 100, "decisions")
    for _ in range(200):
        if "training" in stream.getvalue():
            break
        time.sleep(0.05)
    assert "training" in stream.getvalue()
    shown.stop()


def test_work_that_ends_before_its_total_has_no_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("training", 100, "decisions")
    clock.now_s = 10.0
    lines.advance(50, "stopped")
    lines.stop()
    assert stream.getvalue().splitlines()[-1] == "training: 50 of 100 decisions, 5/s, took 10 s, stopped"


def test_seconds_have_no_rate_and_a_note_stays(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("steering", 100, "s of the allocation")
    lines.advance(0, "2 cores busy")
    clock.now_s = 10.0
    lines.advance(10)
    assert stream.getvalue() == "steering: 10 of 100 s of the allocation, 1:30 min left, 2 cores busy\n"


def test_a_narrow_terminal_has_words_and_no_bar(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    bar = Bar(stream)
    bar.start("steering", 100, "s of the allocation")
    clock.now_s = 10.0
    bar.advance(10, "2 successes, 14 decisions, 2 cores busy")
    bar.stop()
    assert "steering  10%  2 successes, 14 decisions" in stream.getvalue()
