from pathlib import Path

import pytest
import yaml

from rlctl.config.load import config_data, config_hash, load_config, load_rule_file, write_config
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity

GOOD = """
schema: 1
seed: 3
campaign: {name: block_copolymer, options: {grid: 32}}
machine: {nodes: 1, cores: 4}
train: {decisions: 1000, options: {learning_rate: 1e-3}}
policies:
  tuned: rules/feedback.yaml
  hand: {rule: feedback, parameters: {gain: 0.3}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD)
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_good_file_is_read_with_its_defaults(file: Path) -> None:
    config = load_config(file)
    assert config.machine.capacity() == Capacity(nodes=1, cores=4, gpus=0)
    assert config.train is not None
    assert config.train.num_envs == 64
    assert config.evaluate.instances == 256
    assert config.resolve("rules/feedback.yaml") == file.parent / "rules/feedback.yaml"


def test_scientific_notation_is_a_number(file: Path) -> None:
    config = load_config(file, ["campaign.options.tolerance=2E6"])
    assert config.train is not None
    assert config.train.options["learning_rate"] == 1e-3
    assert config.campaign.options["tolerance"] == 2e6


def test_overrides_win_and_make_sections(file: Path) -> None:
    config = load_config(file, ["seed=9", "steer.fallback=hand", "campaign.options.chains=4"])
    assert (config.seed, config.steer.fallback) == (9, "hand")
    assert config.campaign.options == {"grid": 32, "chains": 4}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.decision=3", ["--set train.decision", "unknown key", "did you mean 'decisions'"]),
        ("train.decisions=many", ["--set train.decisions", "valid integer", "'many'"]),
        ("train.decisions=0", ["train.decisions", "greater than or equal to 1"]),
        ("seed=true", ["seed", "integer"]),
        ("machin.cores=2", ["machin", "unknown key", "did you mean 'machine'"]),
        ("policies.hand.parameter={}", ["policies.hand.parameter", "did you mean 'parameters'"]),
        ("policies.hand=3", ["policies.hand"]),
        ("seed.a=1", ["seed", "not a section"]),
        ("schema=2", ["schema", "2", "reads schema 1"]),
        ("seed", ["KEY=VALUE"]),
        ("seed=[", ["--set seed", "not YAML"]),
        ("machine=", ["machine"]),
    ],
)
def test_a_wrong_key_or_value_is_named(file: Path, override: str, said: list[str]) -> None:
    message = refused(file, override)
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "holds a list"),
        (b"just words\n", "holds a string"),
        (b"\x89PNG\xff\xfe\x00", "not a text file"),
        (b"a\x00b", "not YAML"),
        (b"seed: [1\nschema: 1\n", ":2: not YAML"),
        (b"seed: 1\n", "campaign: is missing"),
        (b"schema: 7\nseed: 1\ncampaign: {name: x}\n", "schema 7"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_bytes(content)
    message = refused(path)
    assert said in message
    assert str(path) in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.yaml")
    assert "is a folder" in refused(tmp_path)


def test_the_hash_is_of_what_is_said_not_of_how(file: Path, tmp_path: Path) -> None:
    config = load_config(file)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy.yaml"
    write_config(config, copy)
    assert config_hash(load_config(copy)) == config_hash(config)
    assert config_hash(load_config(file, ["seed=4"])) != config_hash(config)
    assert Config.model_validate(config_data(config)) == Config.model_validate(yaml.safe_load(copy.read_text()))


def test_a_rule_file_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text("schema: 1\nrule: feedback\nparameters: {gain: 0.3}\ntuning: {seed: 1}\n")
    assert load_rule_file(path).parameters == {"gain": 0.3}
    path.write_text("schema: 1\nrules: feedback\n")
    with pytest.raises(ConfigError, match="did you mean 'rule'"):
        load_rule_file(path)


def test_provenance_names_versions_and_platform() -> None:
    found = provenance()
    assert found["versions"]["numpy"]
    assert found["python"].startswith("3.")
    assert found["platform"]
