"""VGG16 and VGG19 (Simonyan and Zisserman, arXiv 1409.1556) on Keras 3, with the layer names of the original
Caffe models. Needs Keras, numpy, h5py, safetensors and tqdm; scikit-image for `load_image`."""
