"""Image bytes to 224x224 pixels."""
