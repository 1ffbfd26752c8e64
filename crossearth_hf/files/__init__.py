"""Files and folders: checked outputs, staged writing, JSON and YAML, downloads."""
