"""All phrases of all layers in one tree of words, so that a report is scanned once.

The words are ids of spaCy's string store. Layers may overlap each other; inside a layer the leftmost, longest phrase
wins, except in layers that ask for every phrase.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

Hit = tuple[int, int, int]  # first word, word after the last, value


class _Node(dict[int, "_Node"]):
    """The words that may follow, and the phrases that end here."""

    __slots__ = ("best", "every", "own")

    def __init__(self) -> None:
        self.own: dict[int, list[int]] = {}  # layer -> values of the phrases that end here
        # what a scan that gets no further has found, laid out for it: (layer, words, value) of the longest phrase of
        # each layer, and of all phrases in layers that ask for every one
        self.best: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
        self.every: tuple[tuple[int, int, int], ...] = ()


class Trie:
    """Phrases as sequences of ids, each with a layer and a value."""

    def __init__(self, layers: int, every: Collection[int] = ()) -> None:
        self._root = _Node()
        self._layers = layers
        self._every = frozenset(every)
        self._ready = False

    def add(self, ids: Iterable[int], layer: int, value: int) -> None:
        """One phrase."""
        node = self._root
        for i in ids:
            node = node.setdefault(i, _Node())
        values = node.own.setdefault(layer, [])
        if value not in values:
            values.append(value)
        self._ready = False

    def scan(self, ids: Sequence[int], hits: list[list[Hit]], places: Iterable[int]) -> None:
        """Add to `hits`, for each layer, the phrases that begin at some places, in the order of the text."""
        if not self._ready:
            self._prepare()
        free = [0] * self._layers
        root, n = self._root, len(ids)
        for i in [i for i in places if ids[i] in root]:
            node, j = root[ids[i]], i + 1
            while node and j < n:
                following = node.get(ids[j])
                if following is None:
                    break
                node = following
                j += 1
            for layer, length, values in node.best:
                if i >= free[layer]:
                    end = free[layer] = i + length
                    for value in values:
                        hits[layer].append((i, end, value))
            for layer, length, value in node.every:
                hits[layer].append((i, i + length, value))

    def find(self, ids: Sequence[int]) -> list[list[Hit]]:
        """For each layer its hits in all of the words."""
        hits: list[list[Hit]] = [[] for _ in range(self._layers)]
        self.scan(ids, hits, range(len(ids)))
        return hits

    def pairs(self) -> Iterator[tuple[int, int]]:
        """The words that stand side by side in any phrase."""
        waiting = list(self._root.items())
        while waiting:
            word, node = waiting.pop()
            yield from ((word, following) for following in node)
            waiting.extend(node.items())

    def _prepare(self) -> None:
        """Write down in each node what has been found on the way to it."""
        waiting: list[tuple[_Node, int]] = [(node, 1) for node in self._root.values()]
        while waiting:
            node, length = waiting.pop()
            best = {layer: (layer, words, values) for layer, words, values in node.best}
            best |= {
                layer: (layer, length, tuple(values)) for layer, values in node.own.items() if layer not in self._every
            }
            node.best = tuple(best.values())
            node.every += tuple((layer, length, value) for layer in self._every for value in node.own.get(layer, ()))
            for following in node.values():
                following.best, following.every = node.best, node.every
                waiting.append((following, length + 1))
        self._ready = True
