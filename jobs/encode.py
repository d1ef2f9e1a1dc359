"""`flowers-batch encode`, as a job: ray job submit --working-dir . -- python jobs/encode.py ..."""

import sys

from flowers_batch.cli import main

main(["encode", *sys.argv[1:]])
