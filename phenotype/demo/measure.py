"""How well the pipeline did against what was planted."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db.queries import by_accession
from phenotype.demo.truth import Truth, score_anomalies, score_findings, score_phenotypes, score_pointing

# What a radiologist may call a planted consolidation, or congestion.
CONSOLIDATION = dict.fromkeys(("opacity", "airspace_disease", "infiltrate", "pneumonia"), "consolidation")
CALLED = CONSOLIDATION | dict.fromkeys(("vascular_congestion", "pulmonary_edema"), "edema_congestion")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: what was measured, the value, what chance or a plain guess would give, and how it was measured."""

    what: str
    value: float
    chance: float | None
    how: str


def measure(session: Session, truth: Truth, models: Sequence[str]) -> list[Measure]:
    """Compare the current runs with the truth; `models` are the labels of the scored models of the normal."""
    labels = by_accession.labels(session)
    findings = score_findings(labels, truth)
    denied = score_findings(labels, truth, assertion="absent")
    scores = {model: by_accession.anomaly_scores(session, model) for model in models}
    pointing = score_pointing(by_accession.term_peaks(session), truth, same=CALLED)
    groups = score_phenotypes(by_accession.phenotypes(session), truth)
    return [
        Measure("findings asserted, micro F1", findings.micro, None, "study labels against what each report says"),
        Measure("findings asserted, macro F1", findings.macro, None, "mean over concepts"),
        Measure("findings denied, micro F1", denied.micro, None, "of concepts that each report speaks of"),
        *(
            Measure(
                f"anomaly AUROC, {model}",
                score_anomalies(found, truth),
                0.5,
                f"a planted lesion or none, over {len(found)} studies",
            )
            for model, found in scores.items()
        ),
        Measure(
            "pointing game",
            pointing.rate,
            pointing.chance,
            f"peaks of {pointing.tried} term maps with evidence inside a planted lesion; chance: the lesions' area",
        ),
        Measure(
            "phenotypes, adjusted Rand",
            groups.adjusted_rand,
            0.0,
            f"agreement with the planted groups over {groups.studies} studies",
        ),
        Measure("phenotypes, mutual information", groups.nmi, 0.0, "normalised"),
    ]
