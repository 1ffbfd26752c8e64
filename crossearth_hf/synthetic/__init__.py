"""SynthEarth: procedural towns seen from above, with exact labels and controllable domain shifts."""

from .scene import DOMAINS, SyntheticScene, generate_scene, synthetic_dataset, write_scene

__all__ = ["DOMAINS", "SyntheticScene", "generate_scene", "synthetic_dataset", "write_scene"]
