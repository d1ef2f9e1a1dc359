"""`flowers-batch predict`, as a job: ray job submit --working-dir . -- python jobs/predict.py ..."""

import sys

from flowers_batch.cli.main import main

main(["--progress=json", "predict", "--json", *sys.argv[1:]])  # a log for programs, ending in the summary
