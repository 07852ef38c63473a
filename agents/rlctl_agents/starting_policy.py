"""Starts a training from the network of a saved policy (``train.start``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlctl.bundle.manifest import Network
from rlctl.bundle.network import NumpyPolicy
from rlctl.core.errors import ConfigError
from rlctl.environments.residual import ResidualPolicy
from rlctl.plugins.registry import load_policy

if TYPE_CHECKING:
    from rlctl.config.schema import Config, RuleEntry

KEY = ("train", "start")


def starting_policy(config: Config, residual: RuleEntry | None) -> NumpyPolicy | None:
    """The saved policy that ``train.start`` names; None: it names none. PyTorch is not loaded.

    Raises:
        ConfigError: it is no saved policy, has no ``model.zip``, or corrects another rule than ``residual``.
        PolicyError: it cannot be used in this game.
    """
    name = config.training.start
    if name is None:
        return None
    found = load_policy(config, name)
    policy = found.network if isinstance(found, ResidualPolicy) else found
    if not isinstance(policy, NumpyPolicy) or policy.folder is None:
        raise ConfigError(f"{name!r} is no saved policy: name one, or its folder", KEY)
    if not (policy.folder / "model.zip").is_file():
        raise ConfigError(f"{policy.folder} has no model.zip, which holds what learning goes on with", KEY)
    theirs = None if policy.manifest.residual is None else policy.manifest.residual.model_dump()
    if theirs != (None if residual is None else residual.model_dump()):
        said = "no rule" if theirs is None else f"rule {theirs['rule']!r} with {theirs['parameters']}"
        raise ConfigError(f"{name!r} corrects {said}: say the same under train.options.residual", KEY)
    return policy


def begin_as(model: Any, policy: NumpyPolicy) -> None:
    """Give a new model the network of a saved policy, its critic included; the optimiser begins anew.

    Only arrays are read from the file, no pickles.

    Raises:
        ConfigError: the model's network is another one.
    """
    from stable_baselines3.common.save_util import load_from_zip_file

    from rlctl_agents.policy_export import actor_network

    assert policy.folder is not None
    theirs, ours = policy.manifest.network, Network.model_validate(actor_network(model))
    problem = f"its network is {theirs}, the configuration's is {ours}" if theirs != ours else ""
    if not problem:
        _, parameters, _ = load_from_zip_file(policy.folder / "model.zip", load_data=False, device=model.device)
        try:
            model.set_parameters({"policy": parameters["policy"]}, exact_match=False)
        except (KeyError, RuntimeError, ValueError) as error:
            problem = (
                "its model.zip holds other parts than this algorithm learns: " + " ".join(str(error).split())[:200]
            )
    if problem:
        raise ConfigError(f"{policy.folder}: {problem}; make train.algorithm and train.options the same", KEY)
