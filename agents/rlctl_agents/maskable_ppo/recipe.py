"""How MaskablePPO is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sb3_contrib import MaskablePPO

from rlctl_agents.asynchronous.on_policy import AsyncMaskablePPO
from rlctl_agents.asynchronous.several import ParallelMaskablePPO
from rlctl_agents.maskable_ppo.description import MaskableDescription
from rlctl_agents.maskable_ppo.network import AttentiveMaskablePolicy
from rlctl_agents.ppo.options import ChoosingOptions, network_spec
from rlctl_agents.ppo.recipe import attach, on_policy, residual
from rlctl_agents.recipe import How, Setting

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext

KINDS: dict[How, type[MaskablePPO]] = {
    How.TOGETHER: MaskablePPO,
    How.ASYNCHRONOUS: AsyncMaskablePPO,
    How.SEVERAL: ParallelMaskablePPO,
}


class MaskableRecipe(MaskableDescription):
    """See ``rlctl_agents.recipe.Recipe``."""

    def kind(self, how: How) -> type[Any]:
        """The class."""
        return KINDS[how]

    def make(self, how: How, setting: Setting, options: ChoosingOptions) -> Any:
        """A new model."""
        attention = network_spec(options, setting.layout)
        policy: Any = "MlpPolicy" if attention is None else AttentiveMaskablePolicy
        kwargs = {"net_arch": options.net_arch} if attention is None else {"attention": attention}
        return KINDS[how](policy, setting.env, policy_kwargs=kwargs, **on_policy(setting, options))

    def attach(self, model: Any, ranks: LearnerContext, options: ChoosingOptions) -> None:
        """Give the model its actors."""
        attach(model, ranks, options)

    def manifest(self, options: ChoosingOptions) -> dict[str, Any]:
        """The rule, if there is one."""
        return residual(options)


recipe = MaskableRecipe()
