"""Campaigns as Gymnasium environments."""
