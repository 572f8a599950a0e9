"""Published cells, tables, comparisons: from run directories and nothing else."""
