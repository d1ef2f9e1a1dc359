"""HTML pages: the report and the review."""
