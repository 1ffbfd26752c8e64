"""Which packages a wheel holds: those of crossearth_hf, and hub_cards/ as a folder of data among them."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["crossearth_hf*"]), "crossearth_hf.hub_cards"],
    package_dir={"crossearth_hf.hub_cards": "hub_cards"},
)
