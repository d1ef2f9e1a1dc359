"""Similar photos by their codes: groups, the nearest ones, near-duplicates."""
