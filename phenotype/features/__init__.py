"""Images to features without labels: train a model, embed images and their regions, score how far from normal."""
