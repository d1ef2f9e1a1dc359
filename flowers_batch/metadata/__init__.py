"""Keywords in the metadata of photos: XMP sidecars, and XMP and IPTC inside the files."""
