"""Text in, mentions out: a reader of radiology reports as spaCy components. It knows no database and no image."""
