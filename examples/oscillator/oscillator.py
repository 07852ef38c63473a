"""A damped oscillator: reads in.txt, writes log.csv while it runs, then results.json. Exits with 3 if it creeps."""

import json
import sys
from pathlib import Path

options = dict(line.split(" = ") for line in Path("in.txt").read_text().splitlines())
mass, damping, stiffness, dt = (float(options[name]) for name in ("mass", "damping", "stiffness", "dt"))
if damping**2 > 4 * mass * stiffness:
    print("damping is above the critical one")
    sys.exit(3)
x, v, settled = 1.0, 0.0, 0.0
with open("log.csv", "w") as log:
    print("time,energy", file=log)
    for step in range(int(20 / dt)):
        v -= dt * (damping * v + stiffness * x) / mass
        x += dt * v
        settled = step * dt if abs(x) > 0.02 else settled
        if step % 100 == 0:
            print(f"{step * dt:.2f},{0.5 * (mass * v**2 + stiffness * x**2):.3e}", file=log, flush=True)
Path("results.json").write_text(json.dumps({"settled": settled, "final": {"x": x, "v": v}}))
