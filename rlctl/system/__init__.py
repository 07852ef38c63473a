"""Operating-system services of commands: interrupts, time limits, atomic files, crash reports, safe terminals."""
