"""VGG16 and VGG19 on Keras 3, with the layer names of the original Caffe models.

The networks are configurations D and E of Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
Image Recognition" (arXiv 1409.1556). Keras, NumPy, h5py, safetensors and tqdm are needed; `load_image` also needs
scikit-image.
"""
