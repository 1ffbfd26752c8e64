"""Parts of `scripts/benchmark.py`: contestants, cases, processes, statistics and tables."""
