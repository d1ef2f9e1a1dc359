"""`flowers-batch predict`, as a job: ray job submit --working-dir . -- python jobs/predict.py ..."""

import sys

from flowers_batch.cli import main

main(["predict", *sys.argv[1:]])
