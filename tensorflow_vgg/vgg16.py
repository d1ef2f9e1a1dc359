"""VGG16 in the words of the course notebook: `vgg = vgg16.Vgg16(); vgg.build(images); vgg.relu6`."""

from tensorflow_vgg.seed import Vgg


class Vgg16(Vgg):
    """VGG16, whose layers are attributes once it was built on images: see `seed.Vgg`."""

    network = "vgg16"
