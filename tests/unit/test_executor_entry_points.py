"""Executors are found by name; what the name or the options get wrong is said before anything is made."""

import json
from pathlib import Path

import pytest

from rlctl.config.load import config_hash, load_config, write_config
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, LaunchError
from rlctl.core.machine import Capacity
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.steering.run_folder import portable

CONFIG = {"schema": 1, "seed": 0, "campaign": {"name": "ensemble"}}


def test_the_local_executor_is_the_default_and_has_no_options() -> None:
    assert Config.model_validate(CONFIG).executor.name == "local"
    executor_factory("local", {}).check(Capacity(cores=1))
    with pytest.raises(LaunchError, match="machine"):
        executor_factory("local", {}).check(Capacity(cores=100_000))
    with pytest.raises(ConfigError, match=r"executor\.options\.nodes: unknown key"):
        executor_factory("local", {"nodes": 2})


def test_an_unknown_executor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"executor\.name: unknown executor 'lokal'.*did you mean 'local'"):
        executor_factory("lokal", {})


def test_a_virtual_environment_lies_where_the_configuration_file_says_also_in_the_run_folder(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "config.yaml"
    file.parent.mkdir()
    applications = {"relative": {"venv": "../venv"}, "absolute": {"venv": "/opt/venv"}, "none": {"modules": ["gcc"]}}
    options = {"lease_s": 1, "applications": applications}
    file.write_text(json.dumps({**CONFIG, "executor": {"options": options}}))
    config = load_config(file)
    expected = {**options, "applications": {**applications, "relative": {"venv": str(file.parent / "../venv")}}}
    assert executor_options(config) == expected
    wrong = config.model_copy(update={"executor": config.executor.model_copy(update={"options": {"applications": 5}})})
    with pytest.raises(ConfigError, match=r"executor\.options\.applications"):
        executor_options(wrong)
    whole = portable(config)
    assert whole.executor.options == expected
    (tmp_path / "run").mkdir()
    write_config(whole, tmp_path / "run" / "config.yaml")
    again = load_config(tmp_path / "run" / "config.yaml")
    assert config_hash(portable(again)) == config_hash(again) == config_hash(whole)
