"""What several tests need: toy stages, and databases as values that can be compared."""

import hashlib
import json
import os
import signal
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Select, literal, select
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import Base, Label, Study
from db.types import UtcTime
from db.write import insert_rows
from phenotype.executors import Compute
from phenotype.stage import Refused, Stage, knob


def contents(database: Database) -> dict[str, list[str]]:
    """All rows of all tables, times and versions of software left out, in an order of their own."""
    found = {}
    with database.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            columns = [c for c in table.columns if not isinstance(c.type, UtcTime) and c.name != "software"]
            rows = connection.execute(select(*columns)) if columns else []
            found[table.name] = sorted(repr([_plain(value) for value in row]) for row in rows)
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "tobytes"):
        return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    return value


def differences(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """Tables that differ, with how many rows stand only in the one and only in the other."""
    return {
        name: (len(set(one[name]) - set(other[name])), len(set(other[name]) - set(one[name])))
        for name in one
        if one[name] != other[name]
    }


def models(home: Path) -> dict[str, str]:
    """The trained models of a folder, by path: tensors as hashes, manifests but for seconds and software."""
    files = sorted((home / "models").rglob("*.safetensors"))
    found = {str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    for path in sorted((home / "models").rglob("*.json")):
        manifest = json.loads(path.read_text("utf-8"))
        training = {k: v for k, v in manifest.get("training", {}).items() if k not in ("seconds", "software")}
        kept = {key: value for key, value in manifest.items() if key != "sha256"} | {"training": training}
        found[str(path.relative_to(home))] = json.dumps(kept, sort_keys=True)
    return found


@dataclass(frozen=True)
class Shout(Stage):
    """A stage for tests: a label for each study."""

    bad: str = knob("", "a study that is refused")
    deadly: str = knob("", "a study that kills its worker")
    crash: str = knob("", "a study whose computation fails with a message that must not be kept", recipe=False)
    version: str = knob("", "of the subjects", recipe=False)

    name: ClassVar[str] = "shout"
    subject: ClassVar[str] = "study_id"
    results: ClassVar = (Label,)
    batch: ClassVar[int] = 4

    def subjects(self) -> Select[Any]:
        return select(Study.id, literal(self.version))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        return {study: len(study) for study in ids}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for study in inputs:
            if study == self.bad:
                raise Refused("bad", "this study is bad")
            if study == self.crash:
                raise RuntimeError("Mr Secret, born 1950")
            if study == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
        return {study: f"{study}{self.version}" for study in inputs}

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        common = {"run_id": self.run_id, "concept_id": "noise", "value": "present", "confidence": 1.0, "mentions": 1}
        insert_rows(session, Label, [common | {"study_id": s, "side": text} for s, text in outputs.items()])


@dataclass(frozen=True)
class Spoiling:
    """The work of a stage that fails of one subject."""

    work: Compute
    subject: str

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.subject in inputs:
            raise Refused("spoiled", "by the test")
        return self.work(inputs)


def spoiled(stage: Stage, subject: str) -> Stage:
    """The same stage, and so the same run, but for one subject that fails."""

    class Spoiled(type(stage)):  # type: ignore[misc]
        def work(self) -> Compute:
            return Spoiling(stage.work(), subject)

    return Spoiled(**{f.name: getattr(stage, f.name) for f in fields(stage)})
