"""Joining a cluster."""

from __future__ import annotations

import subprocess
import sys


def test_address_without_a_cluster_is_refused_in_a_sentence(archive, tmp_path):
    script = (
        "import sys, flowers_batch as fb\n"
        "config = fb.EncodeConfig(network='null', cluster=fb.ClusterConfig(address='nonsense://x'))\n"
        "try: fb.encode(sys.argv[1], sys.argv[2], config)\n"
        "except fb.InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(archive), str(tmp_path / "codes")]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    assert "The Ray cluster at nonsense://x cannot be joined" in printed
