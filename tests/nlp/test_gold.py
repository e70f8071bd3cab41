"""How well the reader does on real reports with manual labels: floors that a change must not fall through.

The measured figures stand well above them; they come from `benchmarks.gold_reader` and the scorer beside the data.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gold_reader", ROOT / "benchmarks" / "gold_reader.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def radeval(shared: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(shared / "tools"))
    import radeval.data
    import radeval.score

    yield radeval
    sys.path.remove(str(shared / "tools"))


def test_chest_radiograph_reports(reader: ModuleType, radeval: ModuleType) -> None:
    docs = radeval.data.openi()
    list(reader.read(docs[0].text))  # the pipeline is loaded at the first call
    predictions, per_cpu_second = radeval.score.predict_all(reader.read, docs)
    scores = radeval.score.score_docs(docs, predictions)
    assert scores["micro"]["f"] > 0.95
    assert scores["macro"]["f"] > 0.92
    told = radeval.score.score_attrs(docs, predictions)
    assert told["sides"]["exact"] > 0.94
    assert told["severity"]["exact"] > 0.94
    assert told["location"]["exact"] > 0.92
    assert radeval.score.score_normal(docs, predictions)["clean"] > 0.965
    assert per_cpu_second > 500


def test_chest_ct_reports(reader: ModuleType, radeval: ModuleType) -> None:
    docs = radeval.data.ct()
    labels = sorted(set(radeval.score.C.CTRATE.values()))
    scores = radeval.score.score_docs(docs, [list(reader.read(d.text)) for d in docs], concepts=labels)
    assert scores["micro"]["f"] > 0.88


def test_negated_phrases_of_clinical_reports(reader: ModuleType, radeval: ModuleType) -> None:
    scores = radeval.score.score_negex(reader.assertion, radeval.data.negex())
    assert scores["f"] > 0.97
    assert scores["accuracy"] > 0.985
