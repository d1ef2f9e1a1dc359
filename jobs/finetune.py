"""`flowers-batch finetune`, as a job: ray job submit --working-dir . -- python jobs/finetune.py ..."""

import sys

from flowers_batch.cli.main import main

main(["--progress=json", "finetune", "--json", *sys.argv[1:]])  # a log for programs, ending in the summary
