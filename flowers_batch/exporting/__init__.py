"""Models that run without this package: SavedModel, ONNX, Keras."""
