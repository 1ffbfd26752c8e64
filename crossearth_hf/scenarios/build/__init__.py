"""Builders: raw archives of the public data sets in, Parquet shards with a data-set card out."""

from .build import BuildReport, build_dataset

__all__ = ["BuildReport", "build_dataset"]
