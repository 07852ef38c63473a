"""What is shipped was made for the games that are shipped: all of it carries the hash of the game beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlctl.bundle.saved_policy import load
from rlctl.config.load import game_hash, load_config, load_rule_file
from rlctl.config.schema import Config
from rlctl.plugins.registry import campaign_factory, configured_game, load_policy

CONFIGS = Path(__file__).parents[2] / "configs"
GAMES = {path.stem: path for path in CONFIGS.glob("*.yaml")}
POLICIES = sorted(path.parent for path in CONFIGS.glob("policies/*/manifest.json"))
RULES = sorted(CONFIGS.glob("tuned/*.yaml"))


def hash_of(config: Config) -> str:
    return game_hash(config, configured_game(config))


def made_for(path: Path) -> str:
    """The configuration that something is made for: one that names it, or else by its own name."""
    inside = path.relative_to(CONFIGS).as_posix()
    named = {name for name, file in GAMES.items() if inside in file.read_text()}
    if named:
        assert len(named) == 1, named
        return named.pop()
    return max((name for name in GAMES if path.stem.startswith(f"{name}_")), key=len)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_a_policy_was_made_for_the_game_beside_it(path: Path) -> None:
    config = load_config(GAMES[made_for(path)])
    manifest = load(path).manifest
    assert (manifest.model_extra or {})["game_hash"] == hash_of(config)
    assert manifest.judgement is None or manifest.judgement.game_hash == hash_of(config)
    assert all(score.model_extra and score.model_extra["game_hash"] == hash_of(config) for score in manifest.scores)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_rule_was_tuned_for_the_game_beside_it(path: Path) -> None:
    tuning = load_rule_file(path).tuning
    assert tuning["game_hash"] == hash_of(load_config(GAMES[made_for(path)]))


@pytest.mark.parametrize("name", GAMES)
def test_every_policy_that_a_configuration_names_is_there(name: str) -> None:
    config = load_config(GAMES[name])
    for policy in config.policies:
        load_policy(config, policy)


def test_the_hash_is_that_of_the_game_and_of_nothing_else() -> None:
    def of(*overrides: str, file: str = "annealing") -> str:
        return hash_of(load_config(GAMES[file], overrides))

    same = of()
    for other in ("seed=7", "train.decisions=9", "evaluate.instances=3", "policies={}", "campaign.options.films=4"):
        assert of(other) == same, other  # 4 films are what it says already
    assert of("campaign.options.retries=3") == same  # the default, which it does not say
    for other in ("campaign.options.films=3", "machine.cores=3", "campaign.options.program.scatter=0.06"):
        assert of(other) != same, other
    factory = campaign_factory("block_copolymer", load_config(GAMES["annealing"]).campaign.options)
    factory.version += 1
    assert game_hash(load_config(GAMES["annealing"]), factory) != same
    assert of(file="cartpole") != of(file="pendulum_sac")
