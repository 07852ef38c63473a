"""Plug-ins: campaigns, policies, executors, learners and placements that packages register."""
