"""weigh and link on rows: what the labellers say, where the words allow it, and where the images lie."""

import numpy as np
import pytest
from sample import IMAGE, RUN_ID, STUDY, fill
from sample_cases import RADIOGRAPHS, labels_of
from sqlalchemy import select, text, update

from db.session import open_database
from db.tables import Alignment, Emission, Labeller, Run, TermEvidence, WeakLabel
from phenotype.linking.stage import Link, MapTerms
from phenotype.linking.weigh import Weigh
from phenotype.stage import Refused, run_stage


@pytest.fixture
def made(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.writing() as session:
        fill(session)
        runs = session.scalars(select(Run).where(Run.stage.in_(("embed", "normalize"))))
        for run in runs:
            run.recipe = run.recipe | {"images": RUN_ID["assemble"]}
    yield database, tmp_path / "home"
    database.close()


def resolved(stage, database, home):
    with database.reading() as session:
        return stage.resolve(session, home)


def test_weigh_makes_one_probability_of_all_that_is_said(made):
    database, home = made
    run = run_stage(Weigh(cohort="all", least=3), database, home).run_id
    with database.reading() as session:
        rows = session.scalars(
            select(WeakLabel).where(WeakLabel.run_id == run, WeakLabel.concept_id == "pleural_effusion")
        )
        found = {row.study_id: row for row in rows}
        labellers = list(session.scalars(select(Labeller.labeller).where(Labeller.run_id == run).distinct()))
    assert {"rules", "findings"} <= set(labellers)
    said = {STUDY[c.number]: labels_of(c).get("pleural_effusion", {}).get("value") for c in RADIOGRAPHS}
    present = [found[study].probability for study, value in said.items() if value == "present"]
    absent = [found[study].probability for study, value in said.items() if value == "absent"]
    assert len(present) > 4 < len(absent)
    assert min(present) > 0.8 > 0.4 > max(absent)
    assert all(found[study].state == "present" for study, value in said.items() if value == "present")


def test_votes_of_a_table_count_and_make_a_run_of_their_own(made, tmp_path):
    database, home = made
    alone = run_stage(Weigh(cohort="all", least=3), database, home).run_id
    with database.reading() as session:
        spoken = select(WeakLabel.study_id).where(WeakLabel.run_id == alone, WeakLabel.concept_id == "pleural_effusion")
        silent = session.scalars(select(WeakLabel.study_id).where(WeakLabel.study_id.not_in(spoken))).first()
    table = tmp_path / "votes.csv"
    table.write_text(f"study,concept,labeller,value\n{silent},pleural_effusion,second reader,present\n")
    both = run_stage(Weigh(cohort="all", least=3, votes=str(table)), database, home).run_id
    assert both != alone
    with database.reading() as session:
        assert session.get(WeakLabel, (alone, silent, "pleural_effusion")) is None
        assert session.get_one(WeakLabel, (both, silent, "pleural_effusion")).probability > 0.5
    table.write_text(f"study,concept,labeller,value\n{silent},pleural_effusion,second reader,perhaps\n")
    with pytest.raises(Refused, match="line 2"):
        run_stage(Weigh(cohort="all", least=3, votes=str(table)), database, home)
    with pytest.raises(Refused, match="cannot be read"):
        run_stage(Weigh(cohort="all", votes=str(tmp_path / "nowhere.csv")), database, home)


def test_few_radiographs_that_are_compared_with_the_mirrored_place_get_a_linear_mapper(made, monkeypatch):
    database, home = made
    assert resolved(Link(cohort="all"), database, home).mapper == "combined"  # as the sample's are described
    with database.writing() as session:
        run = session.get_one(Run, RUN_ID["embed"])
        run.recipe = run.recipe | {"descriptors": "paired", "regions": "patches"}
    assert resolved(Link(cohort="all"), database, home).mapper == "linear"
    assert resolved(Link(cohort="all", mapper="ferns"), database, home).mapper == "ferns"
    monkeypatch.setattr("phenotype.linking.stage.FEW", 3)
    assert resolved(Link(cohort="all"), database, home).mapper == "combined"


def test_link_takes_the_newest_weights_and_space_unless_told_otherwise(made):
    database, home = made
    run = run_stage(Weigh(cohort="all", least=3), database, home).run_id
    stage = resolved(Link(cohort="all"), database, home)
    assert (stage.weights, stage.space) == (run, RUN_ID["normalize"])
    plain = resolved(Link(cohort="all", weights="none", space="body"), database, home)
    assert (plain.weights, plain.space) == ("none", "body")
    with pytest.raises(Refused, match="weigh"):
        resolved(Link(cohort="all", weights="oracle"), database, home)


def test_regions_are_placed_in_the_common_space_and_the_unaccepted_left_out(made):
    database, home = made
    with database.writing() as session:  # the reference is twice as high, and lies a tenth further down
        points = np.stack(np.meshgrid(*[np.linspace(0, 1, 3, dtype=np.float32)] * 2, indexing="ij"), -1)
        moved = (points * [0.5, 1.0] + [0.1, 0.0]).astype(np.float32)
        session.execute(update(Alignment).values(forward=moved))
        left_out = [a.image_id for a in session.scalars(select(Alignment).where(~Alignment.accepted))]
    stage = resolved(Link(cohort="all", least=3, weights="none"), database, home)
    with database.reading() as session:
        (link,) = stage.read(session, [RUN_ID["cohort all"]]).values()
        everywhere = resolved(Link(cohort="all", least=3, weights="none", space="body"), database, home)
        (plain,) = everywhere.read(session, [RUN_ID["cohort all"]]).values()
    assert left_out
    assert len(plain.images) > len(link.images) > 5
    regions, _ = link.images[0]
    centres = (regions.boxes[:, :2] + regions.boxes[:, 2:]) / 2
    assert regions.positions == pytest.approx(centres * [0.5, 1.0] + [0.1, 0.0], abs=1e-6)
    with pytest.raises(AssertionError):
        assert plain.images[0][0].positions == pytest.approx(regions.positions, abs=1e-3)


def test_a_side_in_the_report_keeps_the_other_side_out(made):
    database, home = made
    stage = resolved(Link(cohort="all", least=3, weights="none"), database, home)
    silent = resolved(Link(cohort="all", least=3, weights="none", words=False), database, home)
    with database.reading() as session:
        (link,) = stage.read(session, [RUN_ID["cohort all"]]).values()
        (without,) = silent.read(session, [RUN_ID["cohort all"]]).values()
    assert all(said.where is None for _, said in without.images)
    term = link.concepts.index("pleural_effusion")
    seen = set()
    for regions, said in link.images:
        if said.where is not None and not said.where[term].all():
            allowed = regions.positions[said.where[term]]
            seen.add("right" if allowed[:, 1].max() < 0.6 else "left" if allowed[:, 1].min() > 0.4 else "elsewhere")
    assert {"left", "right"} <= seen


def test_link_and_map_fill_their_tables(made):
    database, home = made
    run = run_stage(Link(cohort="all", least=3, ferns=8, depth=3, weights="none"), database, home).run_id
    with database.reading() as session:
        evidence = session.scalars(select(TermEvidence).where(TermEvidence.run_id == run)).all()
        wording = session.scalars(select(Emission).where(Emission.run_id == run)).all()
    assert {row.concept_id for row in evidence} == {row.concept_id for row in wording}
    for concept in {row.concept_id for row in wording}:
        own = [row for row in wording if row.concept_id == concept]
        assert sum(row.if_present for row in own) == pytest.approx(1, abs=1e-6)
        assert sum(row.if_absent for row in own) == pytest.approx(1, abs=1e-6)
    mapped = run_stage(MapTerms(link=run), database, home)
    accepted = "SELECT count(*) FROM alignment WHERE accepted AND image_id IN (SELECT image_id FROM embedding)"
    with database.reading() as session:
        calls = session.execute(
            text("SELECT call, probability FROM term_map WHERE run_id = :run"), {"run": mapped.run_id}
        ).all()
        assert mapped.done == session.scalar(text(accepted)) < len(IMAGE)
    assert len(calls) == mapped.done * len(evidence)
    assert all(call in ("here", "not here", "undecided") and 0 <= p <= 1 for call, p in calls)
