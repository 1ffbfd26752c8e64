"""Earth styles: a bank from imagery, and pictures of what they do."""
