"""`flowers-batch train`, as a job: ray job submit --working-dir . -- python jobs/train.py ..."""

import sys

from flowers_batch.cli import main

main(["train", *sys.argv[1:]])
