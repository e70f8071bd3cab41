"""Reports to rows: languages, refusals, deadlines, and everything that a finding is told."""

import time

import pytest
from sample import REPORT, STUDY, TABLE_FILE
from sqlalchemy import select, text

from db.tables import Concept, Finding, Modifier, Reading, Report, Site, Task, VaultReport
from nlp import lexicon
from phenotype.executors import Failure, attempt
from phenotype.extraction import reading
from phenotype.extraction.deadline import OutOfTime, deadline
from phenotype.extraction.stage import Extract
from phenotype.stage import Refused, run_stage

ENGLISH = "FINDINGS: New 12 mm nodule in the left upper lobe, previously 8 mm. No pleural effusion."
GERMAN = "Befund: Kein Nachweis eines Pleuraergusses. Das Herz ist normal groß. Beurteilung: Keine Infiltrate."
NEITHER = "0815 4711 ---- 12 34"


def add(database, **texts):
    """Reports of their own, by id; a text, or a text and the language that the delivery names."""
    with database.writing() as session:
        for report, told in texts.items():
            words, language = told if isinstance(told, tuple) else (told, "")
            version = {"language": language, "thread": report, "length": len(words)}
            session.add(Report(id=report, study_id=STUDY[1], file_id=TABLE_FILE, **version))
            session.flush()
            session.add(VaultReport(report_id=report, accession="", text=words))


def run(database, **knobs):
    summary = run_stage(Extract(**knobs), database, database.path.parent)
    with database.reading() as session:
        languages = dict(session.execute(select(Reading.report_id, Reading.language).where(of(Reading, summary))).all())
        failed = select(Task.subject_id, Task.reason).where(Task.run_id == summary.run_id, Task.state == "failed")
        return summary, languages, dict(session.execute(failed).all())


def of(table, summary):
    return table.run_id == summary.run_id


def test_each_report_is_read_in_its_own_language(database):
    add(database, english=ENGLISH, german=GERMAN, neither=NEITHER)
    summary, languages, failed = run(database)
    assert (languages["english"], languages["german"]) == ("en", "de")
    assert failed == {"neither": "language: its language was not recognised; `--language` names it"}
    assert (summary.done, summary.failed) == (len(REPORT) + 3, 1)
    with database.reading() as session:
        shown = dict(session.execute(text("SELECT report, language FROM report_view")).all())
        assert (shown["german"], shown["neither"]) == ("de", "")
        ledger = session.execute(text("SELECT subject, reason FROM failure_view WHERE stage = 'extract'")).all()
    assert [tuple(row) for row in ledger] == list(failed.items())
    again, _, _ = run(database)
    assert (again.run_id, again.before, again.done, again.failed) == (summary.run_id, summary.done, 0, 1)


def test_what_the_delivery_says_is_believed(database):
    add(database, told=(NEITHER, "de"), strange=(ENGLISH, "tlh"))
    _, languages, failed = run(database)
    assert (languages["told"], languages["strange"], failed) == ("de", "en", {})


def test_one_language_reads_what_may_be_in_it(database):
    add(database, english=(ENGLISH, "en"), german=(GERMAN, "de"), neither=NEITHER)
    _, languages, failed = run(database, language="de")
    assert "english" not in languages
    assert set(languages.values()) == {"de"}
    assert failed == {}
    with pytest.raises(Refused, match="there are no words for 'tlh'; use 'auto', or one of de, en"):
        run(database, language="tlh")


def test_the_recipe_knows_all_words(database):
    with database.writing() as session:
        versions = {
            name: Extract(language=name).resolve(session, database.path.parent).lexicon_version
            for name in ("auto", *lexicon.languages())
        }
    assert len(set(versions.values())) == len(versions)
    assert versions["en"] == lexicon.version("en")


def test_everything_that_is_told_of_a_finding_is_stored(database):
    add(database, english=ENGLISH)
    summary, _, _ = run(database)
    with database.reading() as session:
        here = (of(Finding, summary), Finding.report_id == "english")
        found = {f.concept_id: f for f in session.scalars(select(Finding).where(*here))}
        nodule = found["nodule"]
        assert (nodule.size_mm, nodule.side, nodule.site, nodule.change) == (12.0, "left", "upper_lobe", "new")
        assert (nodule.prior_size_mm, nodule.experiencer, nodule.implied) == (8.0, "patient", False)
        assert ENGLISH[nodule.start : nodule.end] == "nodule"
        told = session.scalars(
            select(Modifier).where(Modifier.run_id == summary.run_id, Modifier.finding_start == nodule.start)
        )
        words = {(m.kind, m.value): ENGLISH[m.start : m.end] for m in told}
        assert words["site", "upper_lobe"] == "upper lobe"
        assert (words["side", "left"], words["change", "new"]) == ("left", "New")
        assert words["size", "12.0"] == "12 mm"
        views = session.execute(
            text("SELECT site_name, size_mm, prior_size_mm, change FROM finding_view WHERE report = 'english'")
        ).all()
        assert ("Upper lobe", 12.0, 8.0, "new") in [(row[0] and row[0].capitalize(), *row[1:]) for row in views]
        known = {c.id: (c.name, c.region) for c in lexicon.concepts()}
        stored = {c.id: (c.name, c.region) for c in session.scalars(select(Concept))}
        assert known.items() <= stored.items()
        assert {site.id for site in lexicon.sites()} <= set(session.scalars(select(Site.id)))


def test_several_sites_of_one_finding(database):
    add(database, two="FINDINGS: Opacities in the right upper lobe and the right lower lobe.")
    run(database)
    with database.reading() as session:
        sites = session.scalars(text("SELECT site FROM finding_site_view WHERE report = 'two' ORDER BY site")).all()
        steps = session.execute(text("SELECT site, ancestor FROM site_ancestor_view WHERE steps = 1")).all()
    assert set(sites) == {"upper_lobe", "lower_lobe"}
    parents = {site.id: site.parent for site in lexicon.sites() if site.parent}
    assert parents.items() <= dict(map(tuple, steps)).items()


# ---------------------------------------------------------------- refusals


def test_a_report_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(reading, "LONGEST", 100)
    found = reading.read_reports({"long": ("word " * 21, ""), "short": (ENGLISH, "en")}, "auto", None, "")
    assert found["long"] == Failure("too_long: the report has more than 100 characters")
    assert found["short"].mentions


class Slow:
    """A reader for which one text takes for ever."""

    def __init__(self):
        self.asked = []

    def read_chunk(self, texts):
        self.asked.append(len(texts))
        while "endless" in texts:
            pass
        return [f"read {words}" for words in texts]


def test_a_report_that_takes_too_long_is_refused_alone(monkeypatch):
    slow = Slow()
    monkeypatch.setattr(reading, "SECONDS", 0.2)
    monkeypatch.setattr(reading, "_reader", lambda *_: slow)
    texts = {"a": ("one", ""), "b": ("endless", ""), "c": ("three", "")}
    found = reading.read_reports(texts, "en", None, "")
    assert found == {
        "a": "read one",
        "b": Failure("too_slow: reading it took more than 0.2 seconds"),
        "c": "read three",
    }
    assert list(found) == list(texts)
    assert slow.asked == [3, 1, 1, 1]


def test_a_deadline_counts_processor_time():
    with deadline(0.1):
        time.sleep(0.3)
    with pytest.raises(OutOfTime), deadline(0.1):
        while True:
            pass
    end = time.process_time() + 0.3  # and is over when its block is
    while time.process_time() < end:
        pass


def test_long_reports_are_not_read_under_one_deadline():
    sizes = {str(n): "x" * n for n in (150_000, 40_000, 20_000, 300_000, 5)}
    assert [list(some) for some in reading._together(sizes)] == [["150000", "40000"], ["20000"], ["300000"], ["5"]]


def test_an_output_that_is_a_failure_fails_alone():
    calls = []

    def compute(inputs):
        calls.append(len(inputs))
        return {n: Failure("odd") if n % 2 else n for n in inputs}

    outcome = attempt(compute, dict.fromkeys(range(4)))
    assert (outcome.outputs, set(outcome.failures), calls) == ({0: 0, 2: 2}, {1, 3}, [4])
