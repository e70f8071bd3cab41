"""Every question that the stages, the command line and the pages ask, each a function that returns plain values."""
