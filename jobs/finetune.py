"""`flowers-batch finetune`, as a job: ray job submit --working-dir . -- python jobs/finetune.py ..."""

import sys

from flowers_batch.cli.main import main

main(["finetune", "--json", *sys.argv[1:]])  # so that the log ends in the summary
