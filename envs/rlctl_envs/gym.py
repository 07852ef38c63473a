"""Registers the campaigns with Gymnasium, on the simulated executor, and the film, when it is imported.

Gymnasium 1 has no plug-ins, but an id may name the module that registers it:

>>> env = gymnasium.make("rlctl_envs.gym:rlctl/MoldableQueue-v0")

It is a module of its own because the programs lie in this package as well, and they start sooner without Gymnasium.
"""

from __future__ import annotations

import gymnasium

_CAMPAIGNS = {"BlockCopolymer": "block_copolymer", "MoldableQueue": "moldable_queue", "Ensemble": "ensemble"}
for _name, _campaign in _CAMPAIGNS.items():
    gymnasium.register(
        id=f"rlctl/{_name}-v0", entry_point="rlctl.plugins.registry:make_env", kwargs={"campaign": _campaign}
    )
gymnasium.register(id="rlctl/BlockCopolymerFilm-v0", entry_point="rlctl_envs.block_copolymer.film_env:FilmEnv")
