"""Which outputs an input reaches: tables of connections, and nothing else."""
