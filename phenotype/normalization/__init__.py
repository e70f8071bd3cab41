"""Images brought into a common space, and places followed between images."""
