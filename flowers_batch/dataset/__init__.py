"""Parquet on disk: schemas, a shard's file, the manifest and its growth, a run's folder, CSV."""
