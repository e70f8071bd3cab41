"""Many reports, in the languages that they are written in, on one processor or several.

A `Reader` keeps one pipeline for each language it has met. Its workers get chunks of texts and hand back plain
values: a spaCy Doc that crosses processes costs more than reading its report again.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from spacy.language import Language

from nlp.lexicon import languages
from nlp.pipeline import load_pipeline, read
from nlp.values import Reading

AUTO = "auto"
_TEXTS, _CHARACTERS = 100, 200_000  # a chunk is full at either
_KNOWN = 50_000  # words that a pipeline's vocabulary keeps for good; later ones are forgotten with their chunk
_NOTHING = Reading("", (), (), ())


class Reader:
    """Reads reports in one language, or each in the language that it is found to be written in.

    `lexicon` is a user's own table of findings, or a folder in the form of `lexicons/`.
    Raises LexiconError, which names file, line and column, when a language's pipeline is first needed.
    """

    def __init__(self, language: str = AUTO, lexicon: Path | None = None) -> None:
        self.language, self.lexicon = language, lexicon
        self._known = languages(lexicon)
        self._pipelines: dict[str, Language] = {}

    def read(self, texts: Iterable[str], processes: int = 1) -> Iterator[Reading]:
        """What each text says, in the order of the texts; a text in no known language says nothing, in language "".

        Texts are taken as they are needed: only a few chunks of them are under way at any time.
        """
        if processes > 1:
            return _read_apart(self, _chunks(texts), processes)
        return (reading for chunk in _chunks(texts) for reading in self.read_chunk(chunk))

    def read_chunk(self, texts: list[str]) -> list[Reading]:
        """The readings of texts that are few enough to be held at once."""
        readings = [_NOTHING] * len(texts)
        for language, places in self._by_language(texts).items():
            nlp = self._pipelines.get(language) or self._load(language)
            with nlp.memory_zone() if len(nlp.vocab) > _KNOWN else nullcontext():
                for at, reading in zip(places, read(nlp, [texts[at] for at in places]), strict=True):
                    readings[at] = reading
        return readings

    def forget(self) -> None:
        """Let go of the sentences of the reports read so far, which are kept because reports repeat them."""
        for nlp in self._pipelines.values():
            nlp.get_pipe("report_phrases").forget()

    def _by_language(self, texts: list[str]) -> dict[str, list[int]]:
        """For each language the places of its texts."""
        if self.language != AUTO:
            return {self.language: list(range(len(texts)))}
        from nlp.language import detect

        places: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            places.setdefault(detect(text, self._known, self.lexicon), []).append(at)
        places.pop("", None)
        return places

    def _load(self, language: str) -> Language:
        self._pipelines[language] = load_pipeline(language, self.lexicon, memory=True)
        return self._pipelines[language]


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == _TEXTS or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _read_apart(reader: Reader, chunks: Iterable[list[str]], processes: int) -> Iterator[Reading]:
    workers = _Workers(reader, processes)
    try:
        for chunk in chunks:
            workers.begin(chunk)
            if len(workers.waiting) > 2 * processes:  # so that nobody waits for work, and no more texts are held
                yield from workers.finish()
        while workers.waiting:
            yield from workers.finish()
    finally:
        workers.pool.shutdown(cancel_futures=True)


class _Workers:
    """Processes that read. When one dies, what was under way is begun again, but only once."""

    def __init__(self, reader: Reader, processes: int) -> None:
        self.reader, self.processes = reader, processes
        self.waiting: deque[tuple[list[str], Future[list[Reading]]]] = deque()
        self.pool = self._new_pool()
        self._died = False

    def begin(self, chunk: list[str]) -> None:
        """Hand out a chunk."""
        try:
            future = self._submit(chunk)
        except BrokenProcessPool:
            self._begin_again()
            future = self._submit(chunk)
        self.waiting.append((chunk, future))

    def finish(self) -> list[Reading]:
        """The readings of the chunk that waits the longest."""
        try:
            readings = self.waiting[0][1].result()
        except BrokenProcessPool:
            self._begin_again()
            readings = self.waiting[0][1].result()
        self.waiting.popleft()
        return readings

    def _submit(self, chunk: list[str]) -> Future[list[Reading]]:
        return self.pool.submit(_work, self.reader.language, self.reader.lexicon, chunk)

    def _begin_again(self) -> None:
        if self._died:
            raise BrokenProcessPool("a process that reads reports died twice")
        self._died = True
        self.pool.shutdown()
        self.pool = self._new_pool()
        self.waiting = deque((chunk, self._submit(chunk)) for chunk, _ in self.waiting)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn"))


@cache
def _reader(language: str, lexicon: Path | None) -> Reader:
    """A worker's own reader, kept from chunk to chunk."""
    return Reader(language, lexicon)


def _work(language: str, lexicon: Path | None, texts: list[str]) -> list[Reading]:
    return _reader(language, lexicon).read_chunk(texts)
