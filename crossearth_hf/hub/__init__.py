"""Steps from a model folder to the Hub: its card, its checks, the upload."""
