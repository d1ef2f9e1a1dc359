"""Folders on disk or behind a URL: publishing a file whole, locks, retries."""
