"""Report terms mapped to image regions, from nothing but images and their reports; then onto new images."""
