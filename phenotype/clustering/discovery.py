"""From cases to phenotypes with their members, names and evidence, as rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phenotype.clustering.enrichment import Cases, enrich, name_cluster
from phenotype.clustering.phenotypes import STABLE, find_phenotypes
from phenotype.stage import Refused

if TYPE_CHECKING:
    from phenotype.clustering.stage import Cluster, ClusterInput


@dataclass(frozen=True, slots=True)
class Discovery:
    """Rows of Phenotype, Membership and Enrichment."""

    phenotypes: list[dict[str, Any]]
    memberships: list[dict[str, Any]]
    enrichments: list[dict[str, Any]]


def discover(stage: "Cluster", cases: "ClusterInput") -> Discovery:
    """Find phenotypes in the patients to learn from, assign those kept aside, and test both for over-represented terms.

    Raises Refused where there are too few studies.
    """
    learned, aside = cases.learned, ~cases.learned
    patients = np.array(cases.patients)
    try:
        found = find_phenotypes(
            cases.descriptors[learned],
            patients[learned],
            method="density" if stage.method == "density" else "mixture",
            k_range=(stage.k_min, stage.k_max),
            choose="stability" if stage.choose == "stability" else "bic",
            dimensions=stage.dimensions,
            min_cases=stage.min_cases,
            resamples=stage.resamples,
            seed=stage.seed,
        )
    except ValueError as error:
        raise Refused("too_few", f"{int(learned.sum())} studies to learn from: {error}") from None
    assigned = found.model.assign(cases.descriptors)
    known = Cases(assigned.labels[learned], cases.states[learned])
    held_out = Cases(assigned.labels[aside], cases.states[aside]) if aside.any() else None
    tests = enrich(
        known,
        held_out,
        descriptors_saw_reports=False,
        unmentioned="absent" if stage.unmentioned == "absent" else "exclude",
    )
    names = [name for _, name in cases.concepts]
    ids = [f"{stage.run_id}-{number + 1}" for number in range(found.model.k)]
    sizes = np.bincount(assigned.labels[assigned.labels >= 0], minlength=found.model.k)
    phenotypes = [
        {
            "id": ids[k],
            "number": k + 1,
            "name": name_cluster(tests, k, names, level=stage.level),
            "size": int(sizes[k]),
            "stability": float(found.stability[k]),
            "stable": bool(found.stability[k] >= STABLE),
        }
        for k in range(found.model.k)
    ]
    memberships = [
        {
            "study_id": study,
            "phenotype_id": ids[label],
            "probability": float(responsibilities[label]),
            "split": "train" if is_learned else "holdout",
        }
        for study, label, responsibilities, is_learned in zip(
            cases.studies, assigned.labels.tolist(), assigned.responsibilities, learned.tolist(), strict=True
        )
        if label >= 0
    ]
    enrichments = [
        {
            "phenotype_id": ids[test.cluster],
            "concept_id": cases.concepts[test.term][0],
            "cases": test.cases,
            "expected": test.expected,
            "fold": test.fold,
            "p_value": test.p_value,
            "q_value": test.q_value,
            "replicated": test.replicated,
        }
        for test in tests
    ]
    return Discovery(phenotypes, memberships, enrichments)
