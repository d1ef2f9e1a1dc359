"""A first run on real or synthetic photos."""
