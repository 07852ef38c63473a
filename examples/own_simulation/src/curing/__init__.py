"""Curing a slab of resin: a simulation program, and the campaign that rlctl steers with it."""
