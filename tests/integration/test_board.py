"""What training and steering leave for TensorBoard, read back with TensorBoard's own reader, and the server on it."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_curves import Curves
from PIL import Image
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

import rlctl
from rlctl.core.errors import ConfigError
from rlctl.monitoring.server import serve
from rlctl.monitoring.tags import LAYOUT, METRICS, find
from rlctl.plugins.registry import configured_game
from rlctl_agents.training_board import TrainingBoard

CONFIG = """
schema: 1
seed: 3
campaign: {name: ensemble, options: {workload: {tasks: [4, 6]}}}
machine: {nodes: 8, cores: 1}
train:
  algorithm: ppo
  decisions: 512
  num_envs: 8
  checkpoint_decisions: 256
  validation_instances: 3
  judgement_instances: 0
  options: {n_steps: 16, batch_size: 64, net_arch: [16], ent_coef: 0.01}
policies:
  wide: {rule: lpt, parameters: {efficiency: 0.05, most: 1.0}}
  narrow: {rule: lpt, parameters: {most: 0.02}}
"""
FILMS = """
schema: 1
seed: 1
campaign:
  name: block_copolymer
  options:
    films: 1
    chains: 2
    allocation_s: 8.0
    steps: [40, 80]
    ranks: [1]
    program: {grid: 64, start_up_s: {1: 0.2}, step_s: {1: 0.001}, walltime_s: 20.0}
machine: {cores: 2}
policies:
  feedback: {rule: feedback}
"""
OURS = ("custom_scalars__config__", metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "queue.yaml").write_text(CONFIG)
    rlctl.train(rlctl.load_config(folder / "queue.yaml"), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steered")
    (folder / "films.yaml").write_text(FILMS)
    rlctl.steer(rlctl.load_config(folder / "films.yaml"), "feedback", folder / "run", instance=5)
    return folder / "run"


def look_like_pictures(pngs: list[bytes]) -> bool:
    """The first two strings of an image summary are its width and height."""
    width, height, *images = pngs
    return all(Image.open(io.BytesIO(png)).size == (int(width), int(height)) for png in images) and len(images) > 0


@pytest.mark.parametrize("kind", ["trained", "steered"])
def test_every_tag_stands_in_the_vocabulary_and_the_pages_are_laid_out(
    kind: str, request: pytest.FixtureRequest
) -> None:
    curves = Curves(request.getfixturevalue(kind) / "tensorboard")
    assert {tag for tag in curves.all_tags() if find(tag) is None} == {*OURS, metadata.SESSION_END_INFO_TAG}
    layout = layout_pb2.Layout.FromString(curves.strings(".", OURS[0])[0])
    assert [category.title for category in layout.category] == list(LAYOUT)
    # Each question is answered by some chart that is not empty.
    skipped = {"Are the ranks busy?", "What has been found?"} | ({"Is it learning?"} if kind == "steered" else set())
    for category in (found for found in layout.category if found.title not in skipped):
        shown = [
            chart.title
            for chart in category.chart
            if any(re.match(tag, written) for tag in chart.multiline.tag for written in curves.all_tags())
        ]
        # What is busy at this instant has no meaning for campaigns that are played in step.
        unsaid = ("busy cores", "decisions by command") if kind == "trained" else ()
        # A cost per success may be missing where there was none: a slow machine does not get so far.
        summary = request.getfixturevalue(kind) / "summary.json"
        if kind == "steered" and not json.loads(summary.read_text())["successes"]:
            unsaid += ("node-seconds per success",)
        # Nor does this campaign count anything else than node-seconds.
        expected = [
            chart.title for chart in category.chart if not chart.title.startswith(("cost per success", *unsaid))
        ]
        assert shown == expected
    assert {"about/goal", "about/configuration", "about/versions", "about/reproduce", "about/result"} <= curves.tags(
        ".", "text"
    )
    assert look_like_pictures(curves.strings(".", "machine/allocation"))
    # A rule reads no mask, and none is made for it.
    assert {"machine/task_s", *(["learning/masked_shares"] if kind == "trained" else [])} <= curves.tags(
        ".", "histograms"
    )
    shares = [curves.values(".", tag) for tag in curves.tags(".", "scalars") if tag.startswith("machine/share/")]
    for step in shares[0]:
        assert sum(share[step] for share in shares) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["trained", "steered"])
def test_the_hparams_page_has_the_configuration_and_the_metrics(kind: str, request: pytest.FixtureRequest) -> None:
    curves = Curves(request.getfixturevalue(kind) / "tensorboard")
    content = curves.runs["."].PluginTagToContent("hparams")
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert [info.name.tag for info in experiment.metric_infos] == list(METRICS)
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["machine.cores"].number_value == (1 if kind == "trained" else 2)
    assert start.hparams["run"].string_value == ("train" if kind == "trained" else "steer")
    assert metadata.SESSION_END_INFO_TAG in content
    # A metric may be missing only where there was no success to divide by.
    assert set(METRICS) - curves.tags(".", "scalars") <= {METRICS[0]}


def test_training_shows_the_policy_beside_the_rules(trained: Path) -> None:
    curves = Curves(trained / "tensorboard")
    assert set(curves.runs) == {".", "policy", "rules/wide", "rules/narrow"}
    cost = "winning/node_seconds_per_success"
    assert {0, 512} <= curves.values(".", cost).keys()
    for rule in ("rules/wide", "rules/narrow"):
        level = curves.values(rule, cost)
        assert level.keys() == {0, 512}
        assert level[0] == level[512]
    assert curves.values("rules/wide", cost) != curves.values("rules/narrow", cost)
    # The last point of the curve against cost is what the goal and the cost per success say.
    against = curves.values("policy", "winning/successes")
    assert list(against.values()) == sorted(against.values())
    assert max(against.values()) > 0.0
    learning = {"return_mean", "policy_loss", "value_loss", "entropy", "approx_kl", "lag", "decisions_per_s"}
    assert {f"learning/{name}" for name in learning} <= curves.tags(".", "scalars")
    assert min(curves.values(".", "learning/entropy").values()) > 0.0
    assert {"learning/returns", "learning/actions/head_0"} <= curves.tags(".", "histograms")


def test_steering_shows_what_its_summary_says(steered: Path) -> None:
    curves, summary = Curves(steered / "tensorboard"), json.loads((steered / "summary.json").read_text())
    assert set(curves.runs) == {".", "policy", "rules/feedback"}
    last = summary["decisions"]

    def final(tag: str) -> float:
        return curves.values(".", tag)[last]

    assert final("machine/node_seconds") == pytest.approx(summary["node_seconds"])
    assert final("machine/utilisation") == pytest.approx(summary["utilisation"])
    assert final("winning/goal_rate") == float(summary["reached"])
    assert final("winning/success_rate") == float(summary["successes"] > 0)
    if summary["successes"]:
        assert final("winning/node_seconds_per_success") == pytest.approx(
            summary["node_seconds"] / summary["successes"]
        )
    states = {tag.rpartition("/")[2]: final(tag) for tag in curves.tags(".", "scalars") if "/tasks/" in tag}
    assert states["done"] == summary["tasks"]["done"]
    assert sum(states.values()) == sum(summary["tasks"].values())
    assert curves.values("policy", "winning/successes")[round(summary["node_seconds"])] == summary["successes"]
    assert look_like_pictures(curves.strings(".", "pictures/films"))
    assert 0.0 < final("machine/latency_p50_ms") <= final("machine/latency_p99_ms")


@pytest.fixture
def board(trained: Path, steered: Path) -> Iterator[subprocess.Popen[str]]:
    folders = [str(trained.parent), str(steered)]
    command = [sys.executable, "-m", "rlctl.cli.main", "board", *folders, "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_board_answers_and_ends_when_it_is_told_to(
    trained: Path, board: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert board.stdout is not None
    url = board.stdout.readline().partition("#")[0]
    with urllib.request.urlopen(f"{url}data/environment", timeout=60) as answer:
        assert json.load(answer)["window_title"] == "rlctl"
    name, beside = f"{trained.parent.name}-run", ("policy", "rules/wide", "rules/narrow")
    expected = {name, *(f"{name}/{of}" for of in beside), "run", "run/policy", "run/rules/feedback"}
    shown: set[str] = set()
    end_s = time.monotonic() + 60.0
    while shown != expected and time.monotonic() < end_s:  # it reads the folders after it has begun to answer
        with urllib.request.urlopen(f"{url}data/runs", timeout=60) as answer:
            shown = set(json.load(answer))
    assert shown == expected
    port = url.rstrip("/").rpartition(":")[2]
    taken = subprocess.run(
        [sys.executable, "-m", "rlctl.cli.main", "board", str(Path(board.args[4])), "--port", port],  # type: ignore[index]
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (taken.returncode, taken.stdout, taken.stderr.count("\n")) == (2, "", 1)
    assert f"port {port} is in use" in taken.stderr
    children = Path(f"/proc/{board.pid}/task/{board.pid}/children").read_text()
    board.send_signal(number)
    out, err = board.communicate(timeout=60)
    assert (board.returncode, out, err, children) == (0, "", "", "")
    with pytest.raises(ProcessLookupError):
        os.kill(board.pid, 0)


@pytest.mark.parametrize(("name", "said"), [("missing", "no such folder"), ("", "no TensorBoard event files")])
def test_a_folder_without_curves_is_refused_in_one_line(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        serve([tmp_path / name])


def test_a_validation_is_given_up_when_the_training_is_to_stop(trained: Path, tmp_path: Path) -> None:
    config = rlctl.load_config(trained.parent / "queue.yaml")
    board = TrainingBoard(tmp_path, config, configured_game(config), 0)
    asked = iter([False, False])
    board.validate(lambda: rlctl.load_policy(config, "wide"), 0, required=True, asked=lambda: next(asked, True))
    board.close()
    assert not (tmp_path / "policy").exists()
    assert "about/result" not in Curves(tmp_path).all_tags()
