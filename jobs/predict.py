"""`flowers-batch predict`, as a job: ray job submit --working-dir . -- python jobs/predict.py ..."""

import sys

from flowers_batch.cli.main import main

main(["predict", "--json", *sys.argv[1:]])  # so that the log ends in the summary
