"""Several pools in a configuration: what is wrong is said with its key, and their paths go into the run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlctl.config.load import load_config
from rlctl.core.errors import ConfigError, LaunchError
from rlctl.core.machine import Capacity
from rlctl.plugins.pools import Pools
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.system.cores import available_cores

HERE = {"name": "here", "options": {"oversubscribe": True}}


def pools(*pools: Mapping[str, Any]) -> dict[str, Any]:
    return {"pools": list(pools)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"executor\.options\.pools: is missing"),
        (pools(), r"executor\.options\.pools: .*at least 1"),
        (pools({"name": "a b"}), r"executor\.options\.pools\.0\.name: .*pattern"),
        (pools(HERE, HERE), r"executor\.options\.pools: two pools are called 'here'"),
        (
            pools(HERE, {"name": "b", "node": 2}),
            r"pools\.1\.node: unknown key.*did you mean 'nodes'",
        ),
        (pools(HERE, {"name": "b", "executor": "lokal"}), r"pools\.1\.executor: unknown executor 'lokal'"),
        (pools(HERE, {"name": "b", "options": {"lease": 1}}), r"executor\.options\.pools\.1\.options\.lease: unknown"),
        (pools({"name": "b", "executor": "pools", "options": pools(HERE)}), r"pools\.0\.executor: .*cannot be one of"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        executor_factory("pools", options)


def test_pools_have_the_nodes_of_the_machine_between_them() -> None:
    factory = Pools(pools(HERE, {**HERE, "name": "there", "nodes": 3}))
    factory.check(Capacity(nodes=4))
    with pytest.raises(ConfigError, match=r"executor\.options\.pools: they have 4 nodes, machine\.nodes is 5"):
        factory.check(Capacity(nodes=5))


def test_local_pools_have_the_cores_of_this_machine_between_them() -> None:
    cores = len(available_cores())
    Pools(pools({"name": "a"})).check(Capacity(nodes=1, cores=cores))
    with pytest.raises(LaunchError, match=rf"machine\.cores: {2 * cores} cores are asked for"):
        Pools(pools({"name": "a"}, {"name": "b"})).check(Capacity(nodes=2, cores=cores))


def test_paths_of_a_pool_begin_at_the_configuration_file(tmp_path: Path) -> None:
    options = {"applications": {"relative": {"venv": "venv"}}}
    config = {"schema": 1, "seed": 0, "campaign": {"name": "ensemble"}}
    config["executor"] = {"name": "pools", "options": pools(HERE, {"name": "b", "options": options})}
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))
    found = executor_options(load_config(file))
    whole = {"applications": {"relative": {"venv": str(tmp_path / "venv")}}}
    assert found == pools(HERE, {"name": "b", "options": whole})
