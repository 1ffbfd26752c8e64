"""The network, its losses and its image processor: what every saved folder carries, flat, by the loader's rules."""
