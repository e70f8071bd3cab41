"""Reports in the formats that a RIS or PACS delivers: each reader turns bytes into Records, and refuses with a reason.

The readers are small and tolerant, since real messages keep to no standard; kept libraries are their oracles in the
tests. Nothing that they tell of a file (`told`, reasons, messages) holds any of its content.
"""
