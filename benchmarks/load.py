"""Peak memory and time of building VGG16 up to relu6 from a weights file of each format.

Memory is compared with the size of the weights in float32. Without a file, random weights are written in each format,
and each file is loaded in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LAYER = "relu6"
_SAMPLE_SECONDS = 0.002


def anonymous_bytes() -> int:
    """Return this process's anonymous memory in bytes: what is not backed by a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux 4.5 or newer.")


def measure(path: str) -> dict:
    """Build the network from a file and sample the memory meanwhile."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras  # noqa: F401  before the first sample: its memory is not counted

    from tensorflow_vgg import network, weights

    used = sum(
        kernel.nbytes + bias.nbytes for _, kernel, bias in weights.load(weights.find("random:0"), "vgg16", LAYER)
    )
    network.build("vgg16", "conv1_1", weights.load(weights.find("random:0"), "vgg16", "conv1_1"))
    before, peak, done = anonymous_bytes(), [0], threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak[0] = max(peak[0], anonymous_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    start = time.perf_counter()
    model = network.build("vgg16", LAYER, weights.load(weights.find(path), "vgg16", LAYER))
    seconds = time.perf_counter() - start
    done.set()
    sampler.join()
    assert model.count_params() * 4 == used
    return {
        "format": Path(path).suffix,
        "used_bytes": used,
        "peak_over_used": round((peak[0] - before) / used, 2),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure a file, or each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", help="a weights file (default: random weights in each format)")
    file = parser.parse_args().file
    if file:
        print(json.dumps(measure(file)))
        return
    from tensorflow_vgg.weights import convert

    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".h5", ".safetensors", ".npy"):
            path = f"{folder}/weights{suffix}"
            convert("random:0", path)
            subprocess.run([sys.executable, __file__, path], check=True)
            os.unlink(path)


if __name__ == "__main__":
    main()
