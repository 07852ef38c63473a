"""Campaigns for rlctl; each folder is one. Importing this package registers them with Gymnasium, and the film.

>>> import gymnasium, rlctl_envs
>>> env = gymnasium.make("rlctl/Ensemble-v0")

``gymnasium.make("rlctl_envs:rlctl/Ensemble-v0")`` needs no import. Ids are registered by strings: what stands behind
one is imported when it is made. A program of this package, ``python -m rlctl_envs.block_copolymer.simulate``, starts
without Gymnasium and registers nothing.
"""

from __future__ import annotations

import sys

if sys.argv[:1] != ["-m"]:  # which Python sets while it looks for the module of ``python -m``
    import gymnasium

    for _name, _campaign in {"BlockCopolymer": "block_copolymer", "Ensemble": "ensemble"}.items():
        gymnasium.register(
            id=f"rlctl/{_name}-v0",
            entry_point="rlctl.plugins.registry:make_env",
            vector_entry_point="rlctl.plugins.registry:make_vector_env",
            kwargs={"campaign": _campaign},
        )
    gymnasium.register(id="rlctl/BlockCopolymerFilm-v0", entry_point="rlctl_envs.block_copolymer.film_env:FilmEnv")
