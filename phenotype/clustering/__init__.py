"""Cases to phenotypes: clusters that nobody defined beforehand, their stability, and the findings that mark them."""
