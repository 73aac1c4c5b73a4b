"""What trainings will take of memory and disks, and whether this machine has it."""
