"""Encode, predict and verify: plan a run, have its shards done, check the result."""
