"""`flowers-batch encode`, as a job: ray job submit --working-dir . -- python jobs/encode.py ..."""

import sys

from flowers_batch.cli.main import main

main(["encode", "--json", *sys.argv[1:]])  # so that the log ends in the summary
