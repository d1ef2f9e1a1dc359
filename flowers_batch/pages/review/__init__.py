"""The review: a local web page in which labels are corrected."""
