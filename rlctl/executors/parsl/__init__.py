"""Tasks on the workers of Parsl's high-throughput executor; ``docs/executor.md`` says how it is used."""
