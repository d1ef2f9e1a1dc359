"""The file formats of VGG's weights: the original `.npy`, Keras' published `.h5`, and `.safetensors`.

Nothing in a file is ever executed: the pickle in a `.npy` goes through an unpickler that knows only arrays, and links
in a `.h5` are not followed. Shapes are checked before arrays are read.
"""

from tensorflow_vgg.formats.errors import WeightsError
from tensorflow_vgg.formats.files import READERS, WRITERS, metadata_of, network_of, stored_layers, write
from tensorflow_vgg.formats.keras_h5 import keras_name
from tensorflow_vgg.formats.safetensors_file import save_arrays

__all__ = [
    "READERS",
    "WRITERS",
    "WeightsError",
    "keras_name",
    "metadata_of",
    "network_of",
    "save_arrays",
    "stored_layers",
    "write",
]
