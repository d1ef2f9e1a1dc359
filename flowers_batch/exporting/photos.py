"""Bytes of image files to upright photos, in TensorFlow operations: what `decoding` does, inside of a graph.

Functions take and return tensors. Positions in a file are int64, and parts of it uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Order = Literal["little", "big"]
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_EXIF, _XMP, _PNG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"iTXtXML:com.adobe.xmp\0\0"
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04  # flags in a VP8X chunk
_ORIENTATION, _SHORT, _LONG = 0x0112, 3, 4  # Exif 2.32
_XMP_ORIENTATION = r'\C*?tiff:Orientation(?:="|>)([0-9])\C*'  # RE2's \C is a byte, be it part of UTF-8 or not
_MAX_PIECES = 20_000  # segments or chunks that are looked at
_PADDING = 16


def read_photo(data: Any) -> Any:
    """Return the upright photo uint8 [height, width, 3] of an image file's bytes: JPEG, PNG, GIF, BMP or WebP.

    It is turned by the orientation in EXIF, else in XMP, unless these are compressed, as they may be in a PNG. Alpha is
    composited on white.
    """
    import tensorflow as tf

    photo = tf.case(
        [
            (tf.io.is_jpeg(data), lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")),
            (tf.strings.substr(data, 0, 8) == _PNG, lambda: _decode_png(data)),
        ],
        # TensorFlow decodes a WebP with as many channels as it has, and no other number.
        lambda: tf.io.decode_image(data, expand_animations=False),
    )
    return _upright(_as_rgb(photo), read_orientation(data))


def _decode_png(data: Any) -> Any:
    """Return a PNG's pixels: uint8 [height, width, 4], or [height, width, 1] if it is grey of less than 8 bits."""
    import tensorflow as tf

    bits, colours = tf.unstack(tf.io.decode_raw(tf.strings.substr(data, 24, 2), tf.uint8), 2)
    return tf.cond(
        (colours == 0) & (bits < 8),
        lambda: tf.io.decode_png(data, channels=1),  # with more, TensorFlow does not scale the values
        lambda: tf.io.decode_png(data, channels=4),
    )


def _as_rgb(photo: Any) -> Any:
    """Return a photo [height, width, 1 to 4] as [height, width, 3], with its alpha on white."""
    import tensorflow as tf

    def on_white() -> Any:
        values = tf.cast(photo, tf.float32)
        alpha = values[:, :, 3:] / 255
        return tf.cast(tf.round(values[:, :, :3] * alpha + 255 * (1 - alpha)), tf.uint8)

    channels = tf.shape(photo)[2]
    rgb = tf.case([(channels == 4, on_white), (channels == 1, lambda: tf.tile(photo, (1, 1, 3)))], lambda: photo)
    return tf.ensure_shape(rgb, (None, None, 3))


def _upright(photo: Any, orientation: Any) -> Any:
    """Return a photo of an EXIF orientation, upright."""
    import tensorflow as tf

    turned = tf.cond(orientation >= 5, lambda: tf.transpose(photo, (1, 0, 2)), lambda: photo)

    def one_of(*orientations: int) -> Any:
        return tf.reduce_any(tf.constant(orientations, tf.int64) == orientation)

    turned = tf.cond(one_of(3, 4, 7, 8), lambda: tf.reverse(turned, [0]), lambda: turned)
    return tf.cond(one_of(2, 3, 6, 7), lambda: tf.reverse(turned, [1]), lambda: turned)


def read_orientation(data: Any) -> Any:
    """Return the orientation of an image file's bytes: int64, 1 to 8; 1 if it states none that can be read."""
    import tensorflow as tf

    file = tf.io.decode_raw(data, tf.uint8)
    data = tf.strings.join((data, "\0" * _PADDING))
    places = tf.case(
        [
            (tf.strings.substr(data, 0, 3) == _JPEG, lambda: _jpeg_metadata(data, file)),
            (tf.strings.substr(data, 0, 8) == _PNG, lambda: _png_metadata(data, file)),
            (tf.strings.substr(data, 8, 4) == b"WEBP", lambda: _webp_metadata(data, file)),
        ],
        lambda: tf.zeros((2, 2), tf.int64),
    )
    exif, xmp = tf.unstack(places)
    stated = _exif_orientation(file[exif[0] : exif[1]])
    stated = tf.cond(
        stated >= 0, lambda: stated, lambda: _xmp_orientation(tf.strings.substr(data, xmp[0], xmp[1] - xmp[0]))
    )
    return tf.where((stated >= 1) & (stated <= 8), stated, 1)


def _jpeg_metadata(data: Any, file: Any) -> Any:
    """Return where the first EXIF data and the last XMP packet of a JPEG begin and end: int64 [2, 2], or zeros.

    It goes from segment to segment as `decoding.jpeg.read_header` does.
    """
    import tensorflow as tf

    def step(at: Any, exif: Any, xmp: Any) -> tuple[Any, Any, Any]:
        marker, size = _number(file, at + 1, 1, "big"), _number(file, at + 2, 2, "big")
        content, end = at + 4, at + 2 + tf.maximum(size, 2)
        is_junk = (_number(file, at, 1, "big") != 0xFF) | (marker == 0xFF) | (marker == 0)

        def starts_with(text: bytes) -> Any:
            return ~is_junk & (marker == _APP1) & (tf.strings.substr(data, content, len(text)) == text)

        exif = tf.where(starts_with(_EXIF) & (exif[0] == 0), tf.stack([content, end]), exif)
        xmp = tf.where(starts_with(_XMP), tf.stack([content + len(_XMP), end]), xmp)
        is_alone = (marker == 1) | ((marker >= 0xD0) & (marker <= 0xD8))
        following = tf.where(is_junk, at + 1, tf.where(is_alone, at + 2, end))
        is_last = ~is_junk & ((marker == _SOS) | (marker == _EOI))
        return tf.where(is_last, tf.size(file, tf.int64), following), exif, xmp

    return _walk(file, 2, step)


def _png_metadata(data: Any, file: Any) -> Any:
    """Return where EXIF and XMP of a PNG begin and end, unless they are compressed: int64 [2, 2], or zeros."""
    import tensorflow as tf

    def step(at: Any, exif: Any, xmp: Any) -> tuple[Any, Any, Any]:
        size, kind = _number(file, at, 4, "big"), tf.strings.substr(data, at + 4, 4)
        chunk = tf.stack([at + 8, at + 8 + size])
        exif = tf.where(kind == b"eXIf", chunk, exif)
        xmp = tf.where(tf.strings.substr(data, at + 4, len(_PNG_XMP)) == _PNG_XMP, chunk, xmp)
        return tf.where(kind == b"IEND", tf.size(file, tf.int64), chunk[1] + 4), exif, xmp

    return _walk(file, len(_PNG), step)


def _webp_metadata(data: Any, file: Any) -> Any:
    """Return where the EXIF and XMP chunks that a WebP's VP8X chunk announces begin and end: int64 [2, 2]."""
    import tensorflow as tf

    is_extended = tf.strings.substr(data, 12, 4) == b"VP8X"
    flags = tf.where(is_extended, _number(file, 20, 1, "little"), 0)

    def step(at: Any, exif: Any, xmp: Any) -> tuple[Any, Any, Any]:
        kind, size = tf.strings.substr(data, at, 4), _number(file, at + 4, 4, "little")
        chunk = tf.stack([at + 8, at + 8 + size])
        for_exif = (kind == b"EXIF") & (flags & _WEBP_EXIF > 0) & (exif[0] == 0)
        for_xmp = (kind == b"XMP ") & (flags & _WEBP_XMP > 0) & (xmp[0] == 0)
        return chunk[1] + size % 2, tf.where(for_exif, chunk, exif), tf.where(for_xmp, chunk, xmp)

    return _walk(file, 12, step)


def _walk(file: Any, start: int, step: Callable[[Any, Any, Any], tuple[Any, Any, Any]]) -> Any:
    """Go through a file's pieces, and return where EXIF and XMP were found: int64 [2, 2].

    Args:
        file: The file's bytes, uint8 [N].
        start: Where the first piece begins.
        step: Takes where a piece begins, and where EXIF and XMP are; returns where the next one begins, and the latter.
    """
    import tensorflow as tf

    size, nowhere = tf.size(file, tf.int64), tf.zeros(2, tf.int64)
    _, exif, xmp = tf.while_loop(
        lambda at, exif, xmp: at < size,
        step,
        (tf.constant(start, tf.int64), nowhere, nowhere),
        maximum_iterations=_MAX_PIECES,
    )
    return tf.stack([tf.minimum(exif, size), tf.minimum(xmp, size)])


def _exif_orientation(exif: Any) -> Any:
    """Return the orientation in EXIF data uint8 [N]: int64, or -1 if it has none, as `decoding.orientation` does."""
    import tensorflow as tf

    for _ in range(2):  # some write the prefix twice
        has_prefix = _number(exif, 0, 4, "big") == int.from_bytes(_EXIF[:4], "big")
        exif = exif[tf.where(has_prefix, len(_EXIF), 0) :]
    order, version = _number(exif, 0, 2, "big"), exif[2:4]
    is_tiff = tf.reduce_any(version == 42)
    return tf.case(
        [
            (is_tiff & (order == int.from_bytes(b"II", "big")), lambda: _directory_orientation(exif, "little")),
            (is_tiff & (order == int.from_bytes(b"MM", "big")), lambda: _directory_orientation(exif, "big")),
        ],
        lambda: tf.constant(-1, tf.int64),
    )


def _directory_orientation(tiff: Any, order: Order) -> Any:
    """Return the orientation in the first directory of a TIFF of a known byte order: int64, or -1."""
    import tensorflow as tf

    directory = _number(tiff, 4, 4, order)
    entries = tiff[directory + 2 : directory + 2 + 12 * _number(tiff, directory, 2, order)]
    rows = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12))

    def column(at: int, size: int) -> Any:
        return tf.linalg.matvec(tf.cast(rows[:, at : at + size], tf.int64), _powers(size, order))

    kind = column(2, 2)
    values = tf.where(kind == _SHORT, column(8, 2), column(8, 4))
    is_stated = (column(0, 2) == _ORIENTATION) & (column(4, 4) == 1) & ((kind == _SHORT) | (kind == _LONG))
    return tf.concat((tf.boolean_mask(values, is_stated), [-1]), 0)[0]


def _xmp_orientation(xmp: Any) -> Any:
    """Return the orientation in an XMP packet: int64, or 1 if it has none."""
    import tensorflow as tf

    found = tf.strings.regex_replace(xmp, _XMP_ORIENTATION, r"\1", replace_global=False)
    return tf.strings.to_number(tf.where(tf.strings.length(found) == 1, found, "1"), tf.int64)


def _number(file: Any, at: Any, size: int, order: Order) -> Any:
    """Return the unsigned number in some bytes of a file; bytes beyond its end count as 0."""
    import tensorflow as tf

    found = tf.cast(file[at : at + size], tf.int64)
    return tf.reduce_sum(tf.pad(found, [[0, size - tf.size(found)]]) * _powers(size, order))


def _powers(size: int, order: Order) -> Any:
    import tensorflow as tf

    powers = [256**place for place in range(size)]
    return tf.constant(powers if order == "little" else powers[::-1], tf.int64)
