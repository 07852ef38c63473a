"""Stable-Baselines3's algorithms, learning from the chunks of actors that do not wait for them."""
