"""Tasks in an allocation of Slurm: rlctl chooses hosts, cores and GPUs; ``srun`` starts what runs there."""
