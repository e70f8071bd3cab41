"""Run stages from the command line: progress, a sentence about each, and the exit code."""

from collections.abc import Sequence

import typer

from db.queries import overview
from db.session import Database, open_database
from phenotype import show
from phenotype.pipeline import Step, run_step
from phenotype.settings import Settings
from phenotype.stage import Refused, Summary

FINISHED_WITH_FAILURES = 3  # the exit code where something failed or was quarantined


def run_steps(settings: Settings, steps: Sequence[Step], *, strict: bool = True) -> None:
    """Run steps, say what each did, and leave with 3 where something failed (if `strict`)."""
    database = open_database(settings.database)
    failed = refused = 0
    for step in steps:
        label = f"{step.stage.name} {step.stage.label}".strip()
        try:
            with show.progress(label, quiet=settings.quiet) as progress:
                summary = run_step(
                    step, database, settings.home_of(database), executor=settings.executor, progress=progress
                )
        except Refused as error:
            # the stages after it may not need it; those that do say so
            if len(steps) == 1 or error.code == "busy":
                raise
            show.messages.print(f"{label}: {error}", style="red", markup=False)
            refused += 1
            continue
        failed += summary.failed
        show.messages.print(sentence(label, summary), markup=False)
        for remark in summary.remarks:
            show.messages.print(f"{label}: {remark}", style="yellow", markup=False)
    if refused:
        raise typer.Exit(1)
    finish(database, failed=failed, took_in=any(step.stage.name == "ingest" for step in steps), strict=strict)


def finish(database: Database, *, failed: int, took_in: bool, strict: bool = True) -> None:
    """Leave with 3 (if `strict`) where subjects failed, or where files were taken in and not all could be used."""
    with database.reading() as session:
        quarantined = sum(f.count for f in overview.file_states(session) if f.state in ("quarantined", "conflict"))
    if failed or (took_in and quarantined):
        show.messages.print("some could not be used: `phenotype files` and `phenotype failures` say why", markup=False)
        if strict:
            raise typer.Exit(FINISHED_WITH_FAILURES)


def sentence(label: str, summary: Summary) -> str:
    """What a run did, in a line."""
    before = f", {summary.before} were done before" if summary.before else ""
    failed = f", {summary.failed} failed" if summary.failed else ""
    return f"{label}: {summary.done} done{failed}{before} ({summary.seconds:.1f} s, run {summary.run_id})"
