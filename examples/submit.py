"""Submit a run to a Ray cluster, follow its log, and print its summary.

`ray job submit` does the same from a shell. The project is uploaded as it is in this folder (`.rayignore` excludes what
the cluster does not need), so the cluster needs only the dependencies:

    python examples/submit.py --address http://127.0.0.1:8265 encode s3://photos s3://run/codes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

PROJECT = Path(__file__).parent.parent
COMMANDS = ("encode", "train", "predict", "finetune")


async def follow(client: JobSubmissionClient, job: str) -> str:
    """Print a job's log until it ends, and return the last line."""
    text = ""
    async for part in client.tail_job_logs(job):
        print(part, end="", flush=True)
        text = (text + part)[-100_000:]
    return text.strip().rpartition("\n")[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit one command with its arguments, and exit with an error if the job does not succeed."""
    parser = argparse.ArgumentParser(description="Submit a run to a Ray cluster.")
    parser.add_argument("--address", default="http://127.0.0.1:8265", help="the cluster's dashboard")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's arguments")
    given = parser.parse_args(arguments)

    client = JobSubmissionClient(given.address)
    job = client.submit_job(
        entrypoint=shlex.join(["python", f"jobs/{given.command}.py", *given.arguments]),
        runtime_env={"working_dir": str(PROJECT)},
    )
    print(f"submitted {job}")
    last = asyncio.run(follow(client, job))
    status = client.get_job_status(job)
    if status != JobStatus.SUCCEEDED:
        raise SystemExit(f"{job}: {status}. See the log above; the same submission resumes the run.")
    summary = json.loads(last)
    print("\n" + ", ".join(f"{name}: {summary[name]}" for name in ("images", "ok", "failed") if name in summary))


if __name__ == "__main__":
    main()
