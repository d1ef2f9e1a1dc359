"""The pixels that the network sees."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

SIDE = 224
Pixels = NDArray[Any]  # float32 or uint8 [..., 224, 224, 3], RGB in [0, 255]
