"""Operating-system services: interrupts, time limits, atomic files, crash reports, terminals; cores, GPUs and MPI."""
