"""`flowers-batch train`, as a job: ray job submit --working-dir . -- python jobs/train.py ..."""

import sys

from flowers_batch.cli.main import main

main(["train", "--json", *sys.argv[1:]])  # so that the log ends in the summary
