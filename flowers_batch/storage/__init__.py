"""Folders on disk or behind a URL: atomic publication, locks, retries."""
