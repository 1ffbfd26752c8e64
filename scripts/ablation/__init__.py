"""The ablation study of the README: what is trained, and its table."""
