"""`phenotype export`: what leaves the house, in the forms that other programs read."""

from pathlib import Path
from typing import Annotated

import typer

from db.queries import reported
from db.session import open_database
from phenotype import show

export_app = typer.Typer(help="Findings and images in the forms that other programs read.", no_args_is_help=True)


@export_app.command("findings")
def export_findings(context: typer.Context, out: Annotated[Path, typer.Argument(help="the CSV file to write")]) -> None:
    """A table with a row for each finding. In Python, phenotype.export.frame makes a pandas frame of the same."""
    from phenotype.export.write import write_table

    with open_database(context.obj.database).reading() as session:
        count = write_table(reported.reports(session), out)
    show.messages.print(f"wrote {count} findings to {out}", markup=False)


@export_app.command("fhir")
def export_fhir(context: typer.Context, out: Annotated[Path, typer.Argument(help="the folder to write")]) -> None:
    """FHIR R4: DiagnosticReports and their Observations as NDJSON; surrogates and offsets, no text."""
    from phenotype.export.write import write_fhir

    with open_database(context.obj.database).reading() as session:
        left_out = write_fhir(reported.reports(session), out)
    show.messages.print(f"wrote {out}; left out {left_out} findings not of today or not the patient's", markup=False)


@export_app.command("omop")
def export_omop(context: typer.Context, out: Annotated[Path, typer.Argument(help="the folder to write")]) -> None:
    """OMOP CDM: rows of NOTE and NOTE_NLP as CSV; surrogates and offsets, no text."""
    from phenotype.export.write import write_omop

    with open_database(context.obj.database).reading() as session:
        count = write_omop(reported.reports(session), out)
    show.messages.print(f"wrote {count} rows of NOTE_NLP to {out}", markup=False)
