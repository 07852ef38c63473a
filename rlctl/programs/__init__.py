"""Users' programs: how an executable is started for an evaluation, and how its results are read."""
