"""Kind `search`: which point to evaluate next, at which stage, on what resources, and which run to stop."""
