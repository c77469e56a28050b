"""What a cluster is like, and what a Slurm job asks of it."""
