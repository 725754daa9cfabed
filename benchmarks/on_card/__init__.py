"""The parts of `benchmarks/card.py`, a file each."""
