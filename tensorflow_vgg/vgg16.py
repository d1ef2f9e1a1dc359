"""VGG16 with the course notebook's interface: `vgg = vgg16.Vgg16(); vgg.build(images); vgg.relu6`."""

from tensorflow_vgg.lazy_vgg import LazyVgg


class Vgg16(LazyVgg):
    """VGG16; after `build`, each layer's values are an attribute: see `LazyVgg`."""

    network = "vgg16"
