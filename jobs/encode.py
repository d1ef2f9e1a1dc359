"""`flowers-batch encode`, as a job: ray job submit --working-dir . -- python jobs/encode.py ..."""

import sys

from flowers_batch.cli.main import main

main(["--progress=json", "encode", "--json", *sys.argv[1:]])  # a log for programs, ending in the summary
