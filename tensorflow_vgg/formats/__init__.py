"""The file formats of VGG's weights: the original `.npy`, Keras' published `.h5`, and `.safetensors`.

Files are untrusted, and nothing in them is ever executed. The pickle in a `.npy` is interpreted by a reader that knows
only arrays; HDF5's library reads `.h5` in a process of its own, and links in it are not followed. Shapes are checked
before arrays are read.
"""

from tensorflow_vgg.formats.errors import WeightsError
from tensorflow_vgg.formats.files import READERS, WRITERS, metadata_of, network_of, stored_layers, stored_names, write
from tensorflow_vgg.formats.h5_messages import keras_name
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
    "stored_names",
    "write",
]
