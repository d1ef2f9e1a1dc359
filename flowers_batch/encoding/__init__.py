"""The network on batches of pixels, codes to rows, and weights."""
