"""The report: one page that needs nothing else, says what is so, and replaces nobody's file."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import queue_config, simulated_run

import rlctl
from rlctl.cli.main import main
from rlctl.core.machine import Capacity
from rlctl.core.records import Record, RecordList
from rlctl.monitoring.gantt import MOST_BARS, gantt
from rlctl.monitoring.ledger import Purpose
from rlctl.monitoring.occupancy import allocation_png
from rlctl.monitoring.timeline import Timeline
from rlctl.plugins.registry import campaign_factory
from rlctl.steering.report import MARK
from rlctl.steering.run_folder import read_run

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that elements are closed as they were opened, and keeps tags, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "data", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def says(self, words: str) -> bool:
        return words in " ".join(self.text.split())


def page(run: Path, **options: object) -> Page:
    return Page(rlctl.report(run, **options).read_text(encoding="utf-8"))  # type: ignore[arg-type]


def self_contained(shown: Page, source: str) -> None:
    assert "script" not in shown.tags
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in shown.addresses)
    assert "url(" not in source
    assert "@import" not in source
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)


def test_a_finished_campaign_is_reported_in_one_page_with_the_rules_beside_it(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path, gpus=1), "equal")
    shown = page(run, instances=3)
    source = (run / "report.html").read_text()
    self_contained(shown, source)
    assert MARK in source
    assert shown.says("Goal reached:")
    assert shown.says("the rules are not")
    assert shown.says("median of 4 instances")
    assert shown.says("wide, on the twin")
    assert shown.says("GPU-seconds")
    assert shown.says(f"rlctl steer {run}/config.yaml --policy equal --instance 5 --run {run}-again")
    assert shown.says("--against")
    assert shown.says("No attempt of a task failed.")
    assert shown.says("same_efficiency")
    assert shown.tags.count("svg") > 5
    percents = [int(p) for p in re.findall(r'data-label="%">(\d+)<', source)]
    assert len(percents) == 6
    assert sum(percents) == 100
    # The same policy on the same instance of the same twin is as good as itself.
    assert re.search(r"equal</span></td>.*?effective performance\">1\.00<", source, re.DOTALL)


def test_a_killed_campaign_is_reported_with_the_way_to_go_on(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=4)
    shown = page(run, rules=False)
    assert shown.says("Interrupted before the end:")
    assert shown.says(f"rlctl steer {run}/config.yaml --policy equal --instance 5 --run {run} --resume")
    assert shown.says("rules were omitted on request")
    assert not shown.says("the rules are not")


def test_what_the_journal_says_is_shown_and_never_run(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\"'"
    result = {"values": {}, "failure": "exit", "message": evil, "started_s": 1.0, "ended_s": 2.0, "cores": 1}
    ended = {"result": result}
    plus = [
        Record(0, 1e6, "submitted", {"uid": evil, "attempt": 1}),
        Record(0, 1e6, "launching", {"uid": evil, "attempt": 1, "cores": [0]}),
        Record(0, 1e6 + 1, "event", {"time_s": 1e6 + 1, "uid": evil, "state": "failed", "attempt": 1} | ended),
        Record(0, 1e6 + 2, "fallback", {"number": 99, "reason": evil}),
        Record(0, 1e6 + 2, "decision", {"number": 99, "action": {evil: evil}, "subject": evil}),
    ]
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=2, plus=plus)
    shown = page(run, rules=False)
    self_contained(shown, (run / "report.html").read_text().replace("</script>", ""))
    assert shown.text.count(evil) >= 5
    assert shown.says("exit")


def test_a_campaign_that_is_not_installed_any_more_is_reported_without_rules(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: ensemble", "name: gone_queue"))
    shown = page(run)
    assert shown.says("the rules could not run: ")
    assert shown.says("unknown campaign 'gone_queue'")
    assert shown.says("Goal reached:")


def test_thousands_of_tasks_stay_a_light_picture() -> None:
    rng = np.random.default_rng(0)
    records = RecordList()
    for slot in range(5000):
        core, at = slot % 100, 10.0 * (slot // 100)
        uid = f"task{slot}"
        records.append("submitted", at, {"uid": uid, "attempt": 1})
        records.append("launching", at, {"uid": uid, "attempt": 1, "cores": [core]})
    for slot in range(5000):
        at = 10.0 * (slot // 100) + rng.uniform(6.0, 10.0)
        failure = "exit" if slot % 50 == 0 else None
        state = "failed" if failure else "done"
        result = {"values": {}, "failure": failure, "message": "", "started_s": at, "ended_s": at, "cores": 1}
        data = {"time_s": at, "uid": f"task{slot}", "state": state, "attempt": 1, "result": result}
        records.append("event", at, data)
    drawn, summed = gantt(Timeline.read(records, Capacity(1, 100)))
    assert summed
    assert MOST_BARS < 5000
    assert len(drawn) < 600_000
    assert "failed here" in drawn
    few, summed = gantt(Timeline.read(records[:40], Capacity(1, 100)))
    assert not summed
    assert few.count("<title>task") == 20


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=1)
    for _ in range(2):
        assert rlctl.report(run, tmp_path / "sub" / "page.html", rules=False) == tmp_path / "sub" / "page.html"
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["page.html"]
    assert not (run / "report.html").exists()


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    return err


@pytest.mark.parametrize("command", ["report", "trace", "status"])
def test_a_folder_that_is_no_run_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(folder: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        message = one_line([command, str(folder)], capsys)
        assert sorted(tmp_path.rglob("*")) == before
        return message

    assert "no such folder" in said(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "is a file" in said(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "has no journal.db" in said(tmp_path / "empty")
    (tmp_path / "training" / "checkpoints").mkdir(parents=True)
    assert "folder of a training" in said(tmp_path / "training")
    assert f"rlctl board {tmp_path / 'training'}" in said(tmp_path / "training")
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=2)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").unlink()
    assert "config.yaml: no such file" in said(run)
    (run / "config.yaml").write_text("[")
    assert "config.yaml:1: not YAML" in said(run)
    (run / "config.yaml").write_text(config)
    (run / "journal.db").write_bytes((run / "journal.db").read_bytes()[:5000])
    assert "damaged" in said(run)
    (run / "journal.db").write_text("not a journal")
    assert "damaged or not a journal" in said(run)


@pytest.mark.parametrize("command", ["report", "trace"])
def test_somebody_else_s_file_is_not_replaced(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=2)
    taken = tmp_path / "taken"
    taken.write_text("<html>precious</html>")
    # Without the rules: where these take more than two seconds, there is progress on standard error, too.
    given = [command, str(run), *(["--no-rules"] if command == "report" else []), "--out"]
    assert "rlctl did not write it" in one_line([*given, str(taken)], capsys)
    assert taken.read_text() == "<html>precious</html>"
    assert "is a folder" in one_line([*given, str(tmp_path)], capsys)
    assert "cannot be written" in one_line([*given, str(taken / "below")], capsys)
    assert "is a folder" in one_line([*given, str(run / "work")], capsys)


def test_reading_leaves_the_run_folder_as_it_is(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    rlctl.status(run)
    rlctl.trace(run, tmp_path / "trace.json")
    rlctl.report(run, tmp_path / "report.html", rules=False)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_the_films_of_a_campaign_are_in_its_report(tmp_path: Path) -> None:
    factory = campaign_factory("block_copolymer", {})
    rng = np.random.default_rng(1)
    values = {"good": True, "q": 0.9}
    records = RecordList()
    records.append("event", 1.0, {"uid": "film000-000", "state": "done", "result": {"values": values}})
    assert factory.pictures(tmp_path, records) == {}  # type: ignore[attr-defined]
    np.savez(tmp_path / "film000.0.npz", field=rng.standard_normal((32, 32)))
    (tmp_path / "film000.1.npz").write_bytes(b"PK\x03\x04 half a file")
    drawn = factory.pictures(tmp_path, records)  # type: ignore[attr-defined]
    assert list(drawn) == ["films"]
    assert drawn["films"].startswith(b"\x89PNG\r\n\x1a\n")


def failing(count: int, message: str, since_s: float = 1e6) -> list[Record]:
    records = []
    for number in range(count):
        about, at_s = {"uid": f"run{number:04}", "attempt": 1}, since_s + number
        result = {"values": {}, "failure": "launch", "message": message.format(uid=about["uid"]), "cores": 1}
        result |= {"started_s": at_s, "ended_s": at_s + 0.5}
        records.append(Record(0, at_s, "submitted", about))
        records.append(Record(0, at_s, "launching", {**about, "cores": [0]}))
        data = {**about, "time_s": at_s + 0.5, "state": "failed", "result": result}
        records.append(Record(0, at_s + 0.5, "event", data))
    return records


def test_failures_that_say_the_same_are_one_row_with_one_log(tmp_path: Path) -> None:
    plus = [*failing(200, "{uid}: no lmp"), *failing(60, "another one of {uid}", 2e6)]
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=2, plus=plus)
    (run / "work" / "logs").mkdir()
    for number in (0, 199):
        (run / "work" / "logs" / f"run{number:04}.1.err").write_text("why")
        (run / "work" / "logs" / f"run{number:04}.1.out").write_text("")
    shown = page(run, rules=False)
    assert shown.says("260 failed attempts")
    assert shown.text.partition("Failures")[2].count("no lmp") == 1
    assert shown.says("run0000 at 1,000,000.50 s")
    assert shown.says("run0199 at 1,000,199.50 s")
    assert shown.text.count(".err") == 1
    assert shown.says(str(run / "work" / "logs" / "run0199.1.err"))
    rows = shown.text.partition("Failures")[2]
    assert rows.index("no lmp") < rows.index("another one of")


def test_lists_of_numbers_are_rounded_and_short_words_never_broken(tmp_path: Path) -> None:
    action = {"position": [0.12345678901234567, -2.718281828459045], "ranks": [1, 2], "fidelity": "high"}
    plus = [Record(0, 1e6, "decision", {"number": 99, "action": action, "subject": "search"})]
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=2, plus=plus)
    assert page(run, rules=False).says("position [0.1235, -2.718], ranks [1, 2], fidelity high")
    style = (run / "report.html").read_text().partition("</style>")[0]
    for rule in re.findall(r"([^{}]*)\{[^{}]*overflow-wrap: anywhere[^{}]*\}", style):
        assert rule.split()[-1] in ("dd", "td.text", "td.long")  # no headings, and not every cell
    assert re.search(r"td\.text \{[^}]*min-width: 12ch", style)


def test_a_colour_means_the_same_in_the_report_and_in_tensorboard(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    source = rlctl.report(run, rules=False).read_text()
    light = dict(re.findall(r"(--\w+): (#[0-9a-f]{6});", source.partition("@media")[0]))
    picture = Image.open(io.BytesIO(allocation_png(read_run(run).timeline))).convert("RGB")
    drawn = {colour for _, colour in picture.getcolors(1 << 20)}
    shown = dict(re.findall(r'background:var\((--\w+)\)"></i> ([\w ]+)</span>', source))
    assert sorted(shown.values()) == sorted(purpose.value for purpose in Purpose)
    for variable in shown:
        assert tuple(bytes.fromhex(light[variable][1:])) in drawn  # all are in the legend of the picture
