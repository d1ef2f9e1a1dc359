"""VGG19 with the course notebook's interface: `vgg = vgg19.Vgg19(); vgg.build(images); vgg.relu6`."""

from tensorflow_vgg.lazy_vgg import LazyVgg


class Vgg19(LazyVgg):
    """VGG19; after `build`, each layer's values are an attribute: see `LazyVgg`."""

    network = "vgg19"
