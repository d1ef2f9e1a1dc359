from __future__ import annotations

import numpy as np
import pytest

from flowers_batch.encoding.micro_batcher import MicroBatcher, compiled, pixel_type


class ResourceExhaustedError(Exception):
    """Named like TensorFlow's exception."""


class Small:
    """A network on a device whose memory fits a few pictures only."""

    def __init__(self, capacity: int, error: Exception):
        self.capacity, self.error, self.asked = capacity, error, list[int]()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.asked.append(len(pixels))
        if len(pixels) > self.capacity:
            raise self.error
        return pixels.reshape(len(pixels), -1)[:, :3].astype(np.float32)


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhaustedError("OOM when allocating tensor with shape[32,64,224,224]"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4 bytes."),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_batch_that_does_not_fit_is_halved_and_gives_the_same_codes(error):
    small = Small(5, error)
    passes = MicroBatcher(small, 16)
    np.testing.assert_array_equal(passes(PIXELS), PIXELS.reshape(20, -1)[:, :3])
    assert small.asked == [16, 8, 4, 4, 4, 4, 4]
    passes(PIXELS[:8])
    assert small.asked[-2:] == [4, 4]  # it is not tried again


def test_fitting_size_is_found_before_the_first_batch():
    passes = MicroBatcher(Small(6, ResourceExhaustedError("OOM")), 20)
    passes.fit(PIXELS)
    assert passes.size == 5


def test_single_image_that_does_not_fit_and_other_errors_are_raised():
    with pytest.raises(ResourceExhaustedError):
        MicroBatcher(Small(0, ResourceExhaustedError("OOM")), 8)(PIXELS)
    wrong = Small(0, ValueError("another shape"))
    with pytest.raises(ValueError, match="another shape"):
        MicroBatcher(wrong, 8)(PIXELS)
    assert wrong.asked == [8]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_compiled_model_equals_the_model_for_any_batch_size(narrow, precision, tolerance):
    from tensorflow_vgg import weights
    from tensorflow_vgg.network import build

    model = build("vgg16", "relu6", weights.load(weights.find("random:0"), "vgg16", "relu6"), precision)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3)).astype(pixel_type(precision))
    expected = model.predict_on_batch(pixels.astype(np.float32))
    run = compiled(model, pixel_type(precision))
    for count in (5, 1, 4):
        found = np.asarray(run(pixels[:count]))
        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected[:count]) <= tolerance * np.linalg.norm(expected[:count])


def test_pixels_are_bytes_only_for_bfloat16():
    assert pixel_type("bfloat16") is np.uint8
    assert pixel_type("float32") is np.float32
