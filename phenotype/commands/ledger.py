"""Commands about what was delivered: read it once more, and look at what stays in the vault."""

import getpass
from typing import Annotated

import typer

from db.queries import vault
from db.session import open_database
from phenotype import show
from phenotype.commands.steps import finish, sentence
from phenotype.settings import Settings
from phenotype.show import Csv, Json
from phenotype.stage import Refused


def retry(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="only files quarantined for this; `phenotype files` lists reasons")] = "",
) -> None:
    """Read once more what was quarantined: after a disk came back, or with a newer phenotype."""
    from phenotype.ingest.delivery import retry as read_again
    from phenotype.ingest.stage import Assemble
    from phenotype.stage import run_stage

    settings: Settings = context.obj
    database = open_database(settings.database)
    home = settings.home_of(database)
    with show.progress("retry", quiet=settings.quiet) as progress:
        summaries = read_again(database, home, reason=reason, executor=settings.executor, progress=progress)
    if not summaries:
        show.messages.print("nothing is quarantined that could be read again", markup=False)
        return
    with show.progress("assemble", quiet=settings.quiet) as progress:
        summaries.append(run_stage(Assemble(), database, home, executor=settings.executor, progress=progress))
    for summary in summaries:
        show.messages.print(sentence(summary.stage, summary), markup=False)
    finish(database, failed=sum(summary.failed for summary in summaries), took_in=True)


def paths(
    context: typer.Context,
    state: Annotated[str, typer.Option(help="found, ingested, duplicate, conflict, quarantined or ignored")] = "",
    reason: Annotated[str, typer.Option(help="as in `phenotype files`")] = "",
    limit: Annotated[int, typer.Option(help="how many rows at most")] = 1000,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Where files lie that ended in a state. Paths are personal data: who looks is written down."""
    with open_database(context.obj.database).writing() as session:
        rows = vault.file_paths(session, getpass.getuser(), state=state, reason=reason, limit=limit)
    show.records(rows, vault.FilePath, as_json, as_csv)


def text(context: typer.Context, report: Annotated[str, typer.Argument(help="the id of a report")]) -> None:
    """The words of a report. They are personal data: who looks is written down."""
    with open_database(context.obj.database).writing() as session:
        words = vault.report_text(session, getpass.getuser(), report)
    if words is None:
        raise Refused("report", f"there is no report '{report}': report_view lists them")
    typer.echo(words)
