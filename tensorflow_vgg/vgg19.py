"""VGG19 in the words of the course notebook: `vgg = vgg19.Vgg19(); vgg.build(images); vgg.relu6`."""

from tensorflow_vgg.seed import Vgg


class Vgg19(Vgg):
    """VGG19, whose layers are attributes once it was built on images: see `seed.Vgg`."""

    network = "vgg19"
