"""The `flowers-batch` command."""
