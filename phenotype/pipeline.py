"""The stages in a table, and a pipeline file that names them in order.

A pipeline is TOML: one `[[stage]]` for each step, `run` the name of a stage, and any of its fields. `ingest` also takes
`sources`, a list of paths.
"""

import importlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.session import Database
from phenotype.stage import Progress, Refused, Stage, Summary, run_stage, stage_fields

STAGES: dict[str, str] = {
    "ingest": "phenotype.ingest.stage:Ingest",
    "assemble": "phenotype.ingest.stage:Assemble",
    "extract": "phenotype.extraction.stage:Extract",
    "classify": "phenotype.extraction.stage:Classify",
    "label": "phenotype.extraction.stage:LabelStudies",
    "cohort": "phenotype.extraction.stage:SelectCohort",
    "normalize": "phenotype.normalization.stage:Normalize",
    "train": "phenotype.features.stage:Train",
    "embed": "phenotype.features.stage:Embed",
    "score": "phenotype.features.stage:Score",
    "weigh": "phenotype.linking.weigh:Weigh",
    "link": "phenotype.linking.stage:Link",
    "map": "phenotype.linking.stage:MapTerms",
    "follow": "phenotype.normalization.stage:Follow",
    "cluster": "phenotype.clustering.stage:Cluster",
}

STANDARD = """\
# From an export to phenotypes: `phenotype run {name}`
# Every field of every stage can stand here; `phenotype STAGE --help` lists them.

[[stage]]
run = "ingest"
sources = [{sources}]

[[stage]]
run = "assemble"

[[stage]]
run = "extract"

# a second reader, which has a say in how sure the labels are, and shows where the first may be wrong
[[stage]]
run = "classify"

[[stage]]
run = "label"

# models of the normal learn from studies that were reported normal
[[stage]]
run = "cohort"
called = "normal"
reports = "normal"

[[stage]]
run = "train"
model = "f-anogan"
cohort = "normal"

[[stage]]
run = "score"
model = "f-anogan-image"

[[stage]]
run = "train"
model = "cae"
called = "cae-normal"
cohort = "normal"

[[stage]]
run = "score"
model = "cae-normal"

# everything else learns from all studies
[[stage]]
run = "cohort"
called = "all"

# phenotypes: how the zones of the body look
[[stage]]
run = "train"
model = "cae"
cohort = "all"

[[stage]]
run = "train"
model = "cae"
cohort = "all"
patch = 16

[[stage]]
run = "embed"

[[stage]]
run = "cluster"
cohort = "all"

# term maps: where each image lies in a common space, and its regions described through that
[[stage]]
run = "normalize"

[[stage]]
run = "train"
model = "cae"
called = "cae-thorax"
cohort = "all"
framing = "thorax"

[[stage]]
run = "train"
model = "cae"
called = "cae-thorax-patch"
cohort = "all"
framing = "thorax"
patch = 32
resolution = 256

[[stage]]
run = "embed"
whole = "cae-thorax"
patches = "cae-thorax-patch"
resolution = 256
stride = 16

# what rules, sections and the second reader say, weighed against each other
[[stage]]
run = "weigh"
cohort = "all"

[[stage]]
run = "link"
cohort = "all"

[[stage]]
run = "map"

# patients who came more than once: what has become of the places where terms are seen
[[stage]]
run = "follow"
"""

# What a pipeline needs for CT beside: a model of the normal of its own.
VOLUMES = """
[[stage]]
run = "cohort"
called = "normal-ct"
images = "volume"
reports = "normal"

[[stage]]
run = "train"
model = "cae"
called = "cae-ct"
cohort = "normal-ct"
steps = 400

[[stage]]
run = "score"
model = "cae-ct"
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A stage with its fields, and for `ingest` the paths to take in, or deliveries that are written down already."""

    stage: Stage
    sources: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()


def stage_class(name: str) -> type[Stage]:
    """The class of a stage. Raises Refused for a name that is none."""
    if name not in STAGES:
        raise Refused("stage", f"no stage is called '{name}'; there are {', '.join(STAGES)}")
    module, _, attribute = STAGES[name].partition(":")
    kind: type[Stage] = getattr(importlib.import_module(module), attribute)
    return kind


def make_stage(name: str, values: dict[str, Any]) -> Stage:
    """A stage from its name and fields. Raises Refused for a field it does not have, or a value of another kind."""
    kind = stage_class(name)
    known = {f.name: f for f in stage_fields(kind)}
    for field, value in values.items():
        if field not in known:
            raise Refused("field", f"'{name}' has no field '{field}'; it has {', '.join(known)}")
        default = known[field].default
        right = isinstance(value, type(default)) and not (isinstance(value, bool) and not isinstance(default, bool))
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            right = True
        if not right:
            kinds = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
            raise Refused("field", f"'{field}' of '{name}' is {value!r}, but must be {kinds[type(default)]}")
    return kind(**values)


def read_pipeline(path: Path) -> list[Step]:
    """The steps of a pipeline file. Raises Refused naming what is wrong with it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused("pipeline", f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused("pipeline", f"{path} is not TOML: {error}") from None
    if set(content) != {"stage"} or not isinstance(content["stage"], list):
        raise Refused("pipeline", f"{path} must hold [[stage]] tables and nothing else; `phenotype init` writes one")
    steps = []
    for table in content["stage"]:
        values = dict(table)
        name = values.pop("run", "")
        sources = values.pop("sources", []) if name == "ingest" else []
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise Refused("field", "'sources' of 'ingest' must be a list of paths")
        steps.append(Step(make_stage(name, values), tuple(str(path.parent / source) for source in sources)))
    return steps


def run_step(step: Step, database: Database, home: Path, *, executor: str, progress: Progress | None) -> Summary:
    """Run one step. `ingest` has more to it: files are written down before, and reports matched after."""
    if step.stage.name != "ingest":
        return run_stage(step.stage, database, home, executor=executor, progress=progress)
    from phenotype.ingest.delivery import take_in

    return take_in(
        step.stage,
        database,
        home,
        sources=[Path(source) for source in step.sources],
        exports=step.exports,
        executor=executor,
        progress=progress,
    )
