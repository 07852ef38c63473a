"""Campaigns for rlctl; each folder is one. ``rlctl_envs.gym`` registers them with Gymnasium."""
