"""What a model folder gets before it goes to the Hub: its card, its checks, the upload."""
