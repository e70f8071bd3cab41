"""All phrases of all layers in one tree of words, so that a report is scanned once.

The words are spaCy's LOWER ids. Layers may overlap each other; inside a layer the leftmost, longest phrase wins, except
in layers that ask for every phrase.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

Hit = tuple[int, int, int]  # first word, word after the last, value
_END = 0  # no word has the id 0


class Trie:
    """Phrases as sequences of ids, each with a layer and a value."""

    def __init__(self, layers: int, every: Collection[int] = ()) -> None:
        self._root: dict[int, Any] = {}
        self._layers = layers
        self._every = frozenset(every)

    def add(self, ids: Iterable[int], layer: int, value: int) -> None:
        """One phrase."""
        node = self._root
        for i in ids:
            node = node.setdefault(i, {})
        ends = node.setdefault(_END, [])
        if (layer, value) not in ends:
            ends.append((layer, value))

    def scan(self, ids: Sequence[int]) -> list[list[Hit]]:
        """For each layer its hits, in the order of the text."""
        hits: list[list[Hit]] = [[] for _ in range(self._layers)]
        free = [0] * self._layers
        root, every, n = self._root, self._every, len(ids)
        for i, first in enumerate(ids):
            node = root.get(first)
            if node is None:
                continue
            longest: dict[int, list[Hit]] = {}
            j = i + 1
            while True:
                ends = node.get(_END)
                if ends:
                    fresh = set()
                    for layer, value in ends:
                        if layer in every:
                            hits[layer].append((i, j, value))
                        elif layer in fresh:
                            longest[layer].append((i, j, value))
                        else:
                            fresh.add(layer)
                            longest[layer] = [(i, j, value)]
                if j == n:
                    break
                node = node.get(ids[j])
                if node is None:
                    break
                j += 1
            for layer, found in longest.items():
                if i >= free[layer]:
                    hits[layer].extend(found)
                    free[layer] = found[0][1]
        return hits
