"""The main job in one command: train on the twin, compare with rules, steer real films, show the result."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

import rlctl
from rlctl.bundle.saved_policy import read_manifest
from rlctl.cli.trained import trained
from rlctl.evaluation.compare import Comparison
from rlctl.executors.event_log import Journal
from rlctl.monitoring.progress import progress
from rlctl_envs.block_copolymer.pictures import films_png

CONFIGS = Path(__file__).parent.parent / "configs"
RULES = ["annealing_posterior", "feedback", "linear", "exponential", "cyclic", "constant"]


def main() -> None:
    """Run it all into one folder; an earlier one is set aside, never overwritten."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder for everything that is made")
    parser.add_argument("--instances", type=int, default=48, help="held-out materials of the comparison")
    parser.add_argument("--material", type=int, default=2026, help="the material of the real films")
    options = parser.parse_args()
    run, say = options.run, Console(soft_wrap=True)
    if run.exists():
        aside = next(p for n in range(1, 10**6) if not (p := run.with_name(f"{run.name}.{n}")).exists())
        say.print(f"{run} is set aside as {aside}")
        run.rename(aside)

    say.rule("1. A network learns, briefly, to share eight nodes; it starts as the best of the rules")
    small = rlctl.load_config(CONFIGS / "ensemble_small.yaml")
    saved = rlctl.train(small, run / "train", progress=progress())
    judged = read_manifest(saved).judgement
    assert judged is not None
    say.print(trained([saved])[1])
    say.rule("2. The policy shipped for annealing and the rules play the same held-out materials")
    config = rlctl.load_config(CONFIGS / "annealing.yaml")
    comparison = rlctl.evaluate(config, ["ppo", *RULES], instances=options.instances, workers=2, progress=progress())
    assert isinstance(comparison, Comparison)  # of campaigns, not of environments with rewards
    say.rule("3. The shipped policy steers real films, some of them on two MPI ranks")
    films = run / "films"
    probing = rlctl.load_config(CONFIGS / "annealing.yaml", ["campaign.options.probes=2"])
    real = rlctl.steer(probing, "ppo", films, instance=options.material, progress=progress())
    with Journal.open(films / "journal.db") as journal:
        records = journal.records()
    drawn = films_png(films / "work", records, run / "films.png")
    wide = sum(r.kind == "launching" and len(r.data["cores"]) > 1 for r in records)

    table = Table(title=f"Good films of {options.instances} held-out materials, on the twin")
    for column in ("policy", "films", "node-s", "node-s per film", "no film", "busy"):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for row in comparison.rows:
        low, high = row.ert_interval
        ert = f"{row.ert:.1f} [{low:.1f}, {high:.1f}]"
        busy = f"{row.utilisation:.0%}"
        table.add_row(row.policy, str(row.successes), f"{row.node_seconds:,.0f}", ert, f"{row.no_success:.0%}", busy)
    per_film = f"{real.node_seconds / real.successes:.1f}" if real.successes else "-"
    cells = ("ppo, real films", real.successes, f"{real.node_seconds:,.1f}", per_film, "", f"{real.utilisation:.0%}")
    table.add_row(*map(str, cells), style="bold")
    say.print(table)
    say.print(comparison.verdict())
    say.print(f"real films: {sum(real.tasks.values())} segments as processes, {wide} of them on two MPI ranks")
    compared = {"judgement": judged.model_dump(mode="json"), "comparison": comparison.to_json()}
    summary = {**compared, "real": real.to_json(), "segments_on_two_ranks": wide}
    (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    say.print(f"figures: {run / 'summary.json'}", f"films:   {run / 'films.png'} ({drawn} drawn)", sep="\n")
    say.print(f"curves:  .venv/bin/rlctl board {run}", f"report:  .venv/bin/rlctl report {films}", sep="\n")


if __name__ == "__main__":
    main()
