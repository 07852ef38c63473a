"""Backend on workers of Parsl's high-throughput executor; ``docs/parsl.md`` describes its use."""
