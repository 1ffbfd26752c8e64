"""Parts of `scripts/measure_speed.py`: contestants, cases, processes, statistics and tables."""
