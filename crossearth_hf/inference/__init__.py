"""Pixels to scores: a model and its processor from a folder or the Hub, and sliding windows."""
