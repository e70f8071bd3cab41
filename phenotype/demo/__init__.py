"""A demonstration export of phantoms with planted lesions, and how well the pipeline found them."""
