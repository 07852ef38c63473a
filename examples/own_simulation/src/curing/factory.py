"""What is registered with rlctl: makes the campaign, its twin, and the files of the real runs."""

import json

import rlctl
from curing.campaign import Curing, Options
from curing.twin import Twin, draw_material


class CuringFactory(rlctl.SimpleFactory):
    """One instance, fixed by its seed, is one resin."""

    name = "curing"
    version = 1  # raise it when saved policies no longer fit
    Options = Options

    def campaign(self, seed):
        """The rules of the game; the campaign is not told which resin it is."""
        return Curing(self.options)

    def task_model(self, seed):
        """The twin of instance ``seed``."""
        return Twin(self.options, seed)

    def prepare(self, folder, seed):
        """Write what the real program reads into a fresh run folder."""
        (folder / "material.json").write_text(json.dumps(draw_material(seed)) + "\n")
