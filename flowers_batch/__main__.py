"""`python -m flowers_batch` is the `flowers-batch` command."""

from flowers_batch.cli.main import main

main()
