"""A first run on real or drawn photos."""
