"""`flowers-batch train`, as a job: ray job submit --working-dir . -- python jobs/train.py ..."""

import sys

from flowers_batch.cli.main import main

main(["--progress=json", "train", "--json", *sys.argv[1:]])  # a log for programs, ending in the summary
