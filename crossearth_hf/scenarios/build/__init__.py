"""Builders: archives of the public data sets, or a person's own data, in; Parquet shards with a data-set card out."""

from .build import BuildReport, build_dataset
from .own_source import OwnDataset, build_own_dataset

__all__ = ["BuildReport", "OwnDataset", "build_dataset", "build_own_dataset"]
