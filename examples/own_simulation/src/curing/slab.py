"""Cures a slab of resin in an oven: heat conduction with a reaction that gives off heat, in one dimension.

    python -m curing.slab --material material.json --oven 400 --cells 80 --result result.json

    dT/dt = a d2T/dx2 + H r,   dc/dt = r = A exp(-E / (R T)) (1 - c)

T is the temperature, c the degree of cure. One face has the oven's temperature, the middle of the slab is a mirror.
Explicit finite volumes: half the cell size means an eighth of the error, and about four times the time.

This is an ordinary program. It knows nothing of rlctl.
"""

import argparse
import json
import sys

import numpy as np

HALF_THICKNESS = 0.02  # m
HOLD = 7200.0  # s in the oven
GAS = 8.314  # J / (mol K)
ROOM = 300.0  # K


def cure(material, oven, cells):
    """Highest temperature anywhere at any time (K), and the least degree of cure at the end."""
    dx = HALF_THICKNESS / cells
    dt = 0.4 * dx**2 / material["diffusivity"]
    spread = material["diffusivity"] * dt / dx**2
    temperature, cured, peak = np.full(cells, ROOM), np.zeros(cells), ROOM
    padded = np.empty(cells + 2)
    for _ in range(int(HOLD / dt)):
        reacted = dt * material["rate"] * np.exp(-material["activation"] / (GAS * temperature)) * (1.0 - cured)
        padded[0], padded[1:-1], padded[-1] = oven, temperature, temperature[-1]
        temperature = temperature + spread * np.diff(padded, 2) + material["heat"] * reacted
        cured += reacted
        peak = max(peak, temperature.max())
    return float(peak), float(cured.min())


def main():
    """Read the arguments, compute, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--material", required=True, help="JSON file: diffusivity, heat, rate, activation")
    parser.add_argument("--oven", type=float, required=True, help="temperature of the oven, K")
    parser.add_argument("--cells", type=int, default=80, help="resolution of half the slab")
    parser.add_argument("--result", required=True, help="JSON file to write")
    options = parser.parse_args()
    with open(options.material) as file:
        material = json.load(file)
    peak, cured = cure(material, options.oven, options.cells)
    if not np.isfinite(peak):
        sys.exit("the temperature is not finite")
    with open(options.result, "w") as file:
        json.dump({"peak_K": peak, "cured": cured}, file)


if __name__ == "__main__":
    main()
