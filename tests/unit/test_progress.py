import io

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
        "training: 200 of 3,000 decisions, 100/s, 28 s left, going well",
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
    clock.now_s = 5.0
    lines.advance(100)
    assert stream.getvalue() == "training: 2,100 of 3,000 decisions, 20/s, 45 s left\n"
