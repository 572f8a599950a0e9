"""Sweeps: which runs one is made of, what became of each, and what is left."""
