"""What a wheel holds: the packages of crossearth_hf, hub_cards/ as a folder of data among them, and the command."""

from setuptools import find_namespace_packages, setup

setup(
    py_modules=["crossearth_command"],
    packages=[*find_namespace_packages(include=["crossearth_hf*"]), "crossearth_hf.hub_cards"],
    package_dir={"crossearth_hf.hub_cards": "hub_cards"},
)
