from __future__ import annotations

import hashlib
import pickle
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from encoders import Photos, drawn, encoder, mean_colour, table
from helpers import encoded, fingerprint, manifest_rows, random_pixels, some_head, source, write
from run_folders import write_run

from flowers_batch.config import EncodeConfig
from flowers_batch.dataset.job import Job
from flowers_batch.dataset.schema import CODES, IMAGE_COLUMNS, codes_of, codes_schema, predictions_schema
from flowers_batch.decoding.decode import decode
from flowers_batch.encoding import shard_feed
from flowers_batch.encoding.factories import EncoderFactory, LabellerFactory
from flowers_batch.encoding.feed import count_buffers
from flowers_batch.encoding.labeller import CodesLabeller, Labeller
from flowers_batch.encoding.networks import NullNetwork, weights_identity
from flowers_batch.errors import InputError, RunError
from flowers_batch.sources.reading import ReadError
from flowers_batch.storage.opening import open_folder

CLASSES = ("daisy", "dandelion", "roses", "tulips")


def some_failing() -> dict[str, bytes | Exception]:
    """40 pictures; every third is missing, no picture, cut short or unreadable, all four in turn."""
    photos: dict[str, bytes | Exception] = dict(drawn(40))
    for number, path in enumerate(list(photos)[::3]):
        whole = photos[path]
        photos[path] = (
            ReadError("missing", "gone"),
            b"a letter",
            whole[: len(whole) // 2],
            ReadError("unreadable", "broken disk"),
        )[number % 4]
    return photos


@pytest.mark.parametrize("batch_size", [1, 3, 8, 40, 100])
@pytest.mark.parametrize("threads", [1, 4])
def test_each_image_is_one_row_in_the_manifests_order(batch_size, threads):
    photos = some_failing()
    order = sorted(photos, key=lambda path: hashlib.sha256(path.encode()).digest())
    rows = table(encoder(Photos(photos), batch_size=batch_size, threads=threads), order)
    assert rows["path"].to_pylist() == order
    assert rows.schema.equals(codes_schema(768, "float16"))


@pytest.mark.parametrize("code_dtype", ["float16", "float32"])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_codes_are_the_networks_output_for_the_decoded_photo(code_dtype, batch_size):
    photos = some_failing()
    rows = table(encoder(Photos(photos), batch_size=batch_size, code_dtype=code_dtype), photos)
    checked = 0
    for path, code in zip(rows["path"].to_pylist(), rows["code"], strict=True):
        if code.is_valid:
            expected = NullNetwork()(decode(photos[path]).pixels[None])[0].astype(code_dtype)
            np.testing.assert_array_equal(np.array(code.as_py(), code_dtype), expected)
            checked += 1
    assert checked == 26


def test_columns_describe_the_image():
    photos = drawn(5) | {"x.png": encoded(random_pixels(30, 50))}
    rows = table(encoder(Photos(photos)), photos).to_pylist()
    for row in rows:
        picture = decode(photos[row["path"]])
        assert row["sha256"] == hashlib.sha256(photos[row["path"]]).digest()
        assert (row["bytes"], row["phash"]) == (len(photos[row["path"]]), picture.phash)
        assert (row["width"], row["height"]) == (picture.width, picture.height)
        assert (row["status"], row["reason"], row["message"]) == ("ok", None, None)
    assert [row["folder"] for row in rows] == ["0", "1", "2", "0", "1", None]
    assert (rows[-1]["width"], rows[-1]["height"]) == (50, 30)


def test_failed_image_is_a_row_with_a_reason_and_without_a_code():
    photos = some_failing()
    rows = {row["path"]: row for row in table(encoder(Photos(photos)), photos).to_pylist()}
    reasons = [rows[path]["reason"] for path in list(photos)[::3]]
    assert reasons == (["missing", "not_an_image", "truncated", "unreadable"] * 4)[:14]
    for row in rows.values():
        failed = row["reason"] is not None
        assert row["status"] == ("failed" if failed else "ok")
        assert failed == (row["code"] is None) == (row["message"] is not None) == (row["width"] is None)
        was_read = isinstance(photos[row["path"]], bytes)
        assert was_read == (row["sha256"] is not None) == (row["bytes"] is not None)


def test_shard_of_failures_only_does_not_call_the_network():
    def never(pixels):
        raise AssertionError

    rows = table(encoder(Photos({}), network=never), [f"{n}.jpg" for n in range(20)])
    assert rows["reason"].to_pylist() == ["missing"] * 20
    assert rows["code"].null_count == 20


def test_shard_without_rows_gives_no_rows():
    assert len(table(encoder(Photos({})), [])) == 0


def test_network_gets_full_batches_except_the_last():
    photos, sizes = some_failing(), []

    def network(pixels):
        sizes.append(len(pixels))
        assert (pixels.dtype, pixels.shape[1:]) == (np.float32, (224, 224, 3))
        return mean_colour(pixels)

    table(encoder(Photos(photos), network, 3, batch_size=8), photos)
    assert sizes == [8] * 5


def test_photo_with_more_pixels_than_allowed_is_a_failed_row(tmp_path):
    write(tmp_path, {"large.png": encoded(random_pixels(20, 31)), "small.png": encoded(random_pixels(20, 30))})
    worker = EncoderFactory(EncodeConfig(network="null", max_pixels=600), source(tmp_path))(2, False)
    rows = table(worker, ["large.png", "small.png"])
    assert rows["reason"].to_pylist() == ["too_large", None]


def test_encoder_is_used_for_one_shard_after_another():
    photos = drawn(9)
    worker, paths = encoder(Photos(photos)), list(photos)
    assert table(worker, paths[:5])["path"].to_pylist() == paths[:5]
    assert table(worker, paths[5:])["path"].to_pylist() == paths[5:]


def test_only_a_few_batches_are_decoded_ahead_of_a_slow_network():
    names, batch = [f"{n}.png" for n in range(80)], 4
    photos = Photos({name: encoded(random_pixels(8, 8, seed)) for seed, name in enumerate(names)})
    ahead: list[int] = []

    def slow(pixels):
        wanted = min(len(names), (len(ahead) + 4) * batch)
        until = time.monotonic() + 5
        while photos.reads < wanted and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.01)  # enough time for more, if nothing limited it
        ahead.append(photos.reads - len(ahead) * batch)
        return mean_colour(pixels)

    table(encoder(photos, slow, 3, batch_size=batch, threads=2), names)
    assert len(ahead) == 20
    assert max(ahead) <= count_buffers(2, batch) * batch
    assert all(count >= 4 * batch for count in ahead[:16])


def test_only_a_few_batches_are_decoded_ahead_of_a_slow_writer():
    names, batch = [f"{n}.png" for n in range(80)], 4
    photos = Photos({name: encoded(random_pixels(8, 8, seed)) for seed, name in enumerate(names)})
    written = 0
    for rows in encoder(photos, mean_colour, 3, batch_size=batch).batches(0, manifest_rows(names), {}):
        time.sleep(0.02)
        assert photos.reads - written <= (shard_feed.BATCHES_AHEAD + count_buffers(2, batch) + 1) * batch
        written += len(rows)
    assert written == 80


def test_code_that_float16_cannot_hold_stops_the_run():
    photos = drawn(6)

    def network(pixels):
        return np.full((len(pixels), 3), -70_000, np.float32)

    with pytest.raises(
        RunError, match=r"^A code contains 70000, which float16 cannot represent: encode with `code_dtype` float32\.$"
    ):
        table(encoder(Photos(photos), network, 3), photos)
    rows = table(encoder(Photos(photos), network, 3, code_dtype="float32"), photos)
    assert rows["code"].to_pylist() == [[-70_000.0] * 3] * 6


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("code_dtype", ["float16", "float32"])
def test_code_that_is_not_finite_stops_the_run(value, code_dtype):
    photos = drawn(6)

    def network(pixels):
        codes = mean_colour(pixels)
        codes[-1, 1] = value
        return codes

    with pytest.raises(RunError, match=r"which float\d\d cannot represent: check the network's weights\.$"):
        table(encoder(Photos(photos), network, 3, code_dtype=code_dtype), photos)


def test_exception_of_the_network_is_raised():
    def network(pixels):
        raise MemoryError("no room for a batch")

    with pytest.raises(MemoryError, match="no room for a batch"):
        table(encoder(Photos(drawn(6)), network, 3), drawn(6))


def test_error_that_the_user_can_fix_is_raised_unchanged():
    fault = RunError("The folder photos is gone: bring it back.")
    with pytest.raises(RunError) as raised:
        table(encoder(Photos(drawn(9) | {"1/004.png": fault})), drawn(9))
    assert raised.value is fault


def test_seconds_of_each_stage_are_added_up():
    photos, stages = drawn(9), {"read": 100.0}
    table(encoder(Photos(photos)), photos, stages)
    assert stages.keys() == {"read", "decode", "wait", "network"}
    assert stages["read"] > 100 and stages["decode"] > 0


def labels(head, photos, tmp_path: Path, top_k: int, code_dtype: str) -> tuple[pa.Table, pa.Table]:
    """Labels from images, and from a codes folder of the same images."""
    from_images = table(encoder(photos, labeller=Labeller(head, top_k), code_dtype=code_dtype), photos.photos)
    codes, folder = encoder(photos, code_dtype=code_dtype), open_folder(tmp_path)
    batches = codes.batches(0, manifest_rows(list(photos.photos)), {})
    write_run(folder, Job(CODES, "/photos", codes.fingerprint, "null"), [list(batches)])
    return from_images, table(CodesLabeller(str(tmp_path), fingerprint(), Labeller(head, top_k)), photos.photos)


@pytest.mark.parametrize("code_dtype", ["float16", "float32"])
@pytest.mark.parametrize("top_k", [1, 3, 99])
def test_labels_from_images_equal_labels_from_their_codes(tmp_path, top_k, code_dtype):
    head = some_head(CLASSES, 768, temperature=40.0, threshold=0.6)
    from_images, from_codes = labels(head, Photos(some_failing()), tmp_path, top_k, code_dtype)
    assert from_images.schema.equals(predictions_schema()) and from_codes.schema.equals(predictions_schema())
    for name in (*IMAGE_COLUMNS, "prediction", "top_labels", "is_unknown"):
        assert from_images[name].equals(from_codes[name]), name
    for one, other in zip(from_images.to_pylist(), from_codes.to_pylist(), strict=True):
        if one["status"] == "ok":
            # Batches of other sizes are multiplied in another order; storing in float16 would change far more.
            assert one["probability"] == pytest.approx(other["probability"], abs=2e-6)
            assert one["top_probabilities"] == pytest.approx(other["top_probabilities"], abs=2e-6)
    assert len(set(from_images["is_unknown"].to_pylist())) == 3  # true, false and, where failed, null


def test_failed_image_has_no_label(tmp_path):
    for rows in labels(some_head(CLASSES, 768), Photos(some_failing()), tmp_path, 3, "float16"):
        for row in rows.to_pylist():
            values = [row[name] for name in predictions_schema().names if name not in IMAGE_COLUMNS]
            assert values == [None] * 5 if row["status"] == "failed" else None not in values


@pytest.mark.parametrize("top_k", [1, 3, 4, 9])
def test_top_labels_are_the_likeliest_in_order(top_k):
    head, codes = some_head(CLASSES, 8), np.random.default_rng(2).normal(0, 3, (30, 8)).astype(np.float32)
    columns = Labeller(head, top_k).columns(codes, np.ones(30, bool))
    for row, probabilities in enumerate(head.probabilities(codes)):
        best = np.argsort(-probabilities)[:top_k]
        assert columns["top_labels"][row].as_py() == [CLASSES[number] for number in best]
        np.testing.assert_array_equal(np.float32(columns["top_probabilities"][row].as_py()), probabilities[best])
        assert columns["prediction"][row].as_py() == CLASSES[probabilities.argmax()]
        assert columns["probability"][row].as_py() == probabilities.max()


def test_label_below_the_threshold_is_unknown():
    codes = np.random.default_rng(2).normal(0, 3, (200, 8)).astype(np.float32)
    highest = some_head(CLASSES, 8).probabilities(codes).max(1)
    threshold = float(np.median(highest))
    for given, expected in ((threshold, highest < threshold), (None, np.zeros(200, bool)), (1.1, np.ones(200, bool))):
        unknown = Labeller(some_head(CLASSES, 8, threshold=given), 2).columns(codes, np.ones(200, bool))["is_unknown"]
        assert unknown.to_pylist() == expected.tolist()
    assert 0 < (highest < threshold).sum() < 200


def test_rows_without_a_code_become_nulls():
    codes, ok = np.eye(8, dtype=np.float32)[:2], np.array([False, True, False, True, False])
    columns = Labeller(some_head(CLASSES, 8), 2).columns(codes, ok)
    assert all(column.is_valid().to_pylist() == ok.tolist() for column in columns.values())
    both = Labeller(some_head(CLASSES, 8), 2).columns(codes, np.array([True, True]))
    assert columns["prediction"].drop_null().equals(both["prediction"])


def test_codes_of_a_batch_are_those_of_its_ok_rows():
    schema = codes_schema(3, "float16")
    codes = [None, [1.0, 2.0, 3.0], None, [4.0, 5.0, 6.0]]
    rows = [dict.fromkeys(schema.names) | {"path": "x", "status": "y", "code": code} for code in codes]
    for start in range(4):  # a slice keeps the arrays of the entire batch
        found, ok = codes_of(pa.RecordBatch.from_pylist(rows, schema).slice(start))
        assert ok.tolist() == [False, True, False, True][start:]
        assert found.tolist() == [code for code in codes[start:] if code]
        assert found.dtype == np.float16


def test_null_network_gives_pixels_of_the_photo_itself():
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 224, 224, 3)).astype(np.float32)
    codes = NullNetwork()(pixels)
    assert codes.shape == (3, NullNetwork.width)
    np.testing.assert_array_equal(codes[1].reshape(16, 16, 3), pixels[1, 7::14, 7::14])


def test_factory_makes_an_encoder_with_its_fingerprint(tmp_path):
    write(tmp_path, drawn(6))
    factory = EncoderFactory(EncodeConfig(network="null", batch_size=4), source(tmp_path))
    worker = pickle.loads(pickle.dumps(factory.with_precision("float32")))(2, False)
    assert worker.fingerprint == fingerprint()
    rows = table(worker, drawn(6))
    assert rows["status"].to_pylist() == ["ok"] * 6
    assert rows.schema.equals(codes_schema(768, "float16"))


def test_factory_with_a_head_makes_an_encoder_of_labels(tmp_path):
    write(tmp_path, drawn(6))
    head = some_head(CLASSES, 768)
    worker = EncoderFactory(EncodeConfig(network="null"), source(tmp_path), head, 2)(2, False)
    assert worker.fingerprint == fingerprint(head=head.identity, top_k=2)
    assert {len(found) for found in table(worker, drawn(6))["top_labels"].to_pylist()} == {2}


def test_factories_are_small_and_need_a_gpu_only_to_compute(tmp_path):
    write(tmp_path, drawn(1))
    encoding = EncoderFactory(EncodeConfig(network="null"), source(tmp_path))
    labelling = LabellerFactory("/codes", fingerprint(), some_head(CLASSES, 8), 2)
    assert len(pickle.dumps(encoding)) < 4000 and len(pickle.dumps(labelling)) < 4000
    assert encoding.wants_gpu and not labelling.wants_gpu
    assert labelling.with_precision("bfloat16") == labelling
    assert labelling(1, False).fingerprint == fingerprint(head=labelling.head.identity, top_k=2)


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.npy"):
        weights_identity(EncodeConfig(weights=str(tmp_path / "nowhere.npy")))


def test_images_that_need_no_network_count_as_progress():
    worker = encoder(Photos({}), batch_size=100)
    seen = []
    for _ in worker.batches(0, manifest_rows([f"{number}.jpg" for number in range(50)]), {}):
        seen.append(worker.steps)
    assert len(seen) == 1 and seen[0] > 0
