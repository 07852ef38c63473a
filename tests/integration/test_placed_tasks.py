"""A placement rule of the configuration decides on which nodes real tasks start."""

from pathlib import Path

from rlctl.config.load import load_config
from rlctl.plugins.registry import load_policy
from rlctl.steering.control import steer
from rlctl.steering.run_folder import read_run

CONFIGS = Path(__file__).parents[2] / "configs"


def test_real_tasks_go_where_it_says(tmp_path: Path) -> None:
    settings = [
        "campaign.options.placement={rule: linear, parameters: {cores: 5.0, spoiled: 0.0, gpus: 0.0}}",
        "campaign.options.workload={tasks: [2, 2], work_s: 0.6, spread: [0, 0], error: [0, 0], spawn_probability: 0}",
        "campaign.options.ranks=[1]",
        "steer.rules_on_twin=false",
    ]
    config = load_config(CONFIGS / "ensemble_paced.yaml", settings)
    steer(config, load_policy(config, "lpt"), tmp_path / "run")
    records = read_run(tmp_path / "run").records
    launched = [record.data["cores"][0] // 2 for record in records if record.kind == "launching"]
    assert launched == [0, 1]
