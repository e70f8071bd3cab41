"""`phenotype export`: what leaves the house, in the forms that other programs read."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from db.queries import reported
from db.session import open_database
from phenotype import show
from phenotype.commands.models import export_model
from phenotype.commands.steps import FINISHED_WITH_FAILURES
from phenotype.settings import Settings

Cohort = Annotated[str, typer.Option(help="the studies of a cohort, by its name")]
Studies = Annotated[list[str] | None, typer.Option("--study", help="the id of a study; may be given more than once")]
Everything = Annotated[bool, typer.Option("--all", help="all studies")]

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


@export_app.command("dicom")
def export_dicom(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="the folder to write; run again, it continues")],
    cohort: Cohort = "",
    study: Studies = None,
    everything: Everything = False,
    burned_in: Annotated[
        str, typer.Option(help="text in pixels: quarantine (do not export), mask (find by OCR, paint over), keep")
    ] = "quarantine",
    no_dates: Annotated[
        bool, typer.Option("--no-dates", help="remove dates and times instead of shifting days")
    ] = False,
    keep_characteristics: Annotated[
        bool, typer.Option("--keep-characteristics", help="keep sex, age (over 89 becomes 90), size, weight")
    ] = False,
    keep_device: Annotated[bool, typer.Option("--keep-device", help="keep what identifies the device")] = False,
    clean_descriptors: Annotated[
        bool, typer.Option("--clean-descriptors", help="keep descriptions that are made of listed words alone")
    ] = False,
    keep_safe_private: Annotated[
        bool, typer.Option("--keep-safe-private", help="keep private attributes that are listed as safe")
    ] = False,
    keep_uids: Annotated[
        bool, typer.Option("--keep-uids", help="keep UIDs: whoever has the PACS can look them up")
    ] = False,
) -> None:
    """De-identified DICOM by the Basic Profile of PS3.15 Annex E: pseudonymised, not anonymous."""
    from phenotype.export.deidentify import Options
    from phenotype.export.dicom_folder import NOTE
    from phenotype.export.dicom_folder import export_dicom as export
    from phenotype.export.dicom_selection import Selection

    settings: Settings = context.obj
    options = Options(
        modified_dates=not no_dates,
        characteristics=keep_characteristics,
        device=keep_device,
        descriptors=clean_descriptors,
        safe_private=keep_safe_private,
        uids=keep_uids,
    )
    with show.progress("export", quiet=settings.quiet) as progress:
        done = export(
            open_database(settings.database),
            out,
            Selection(cohort, tuple(study or ()), everything),
            options,
            text=burned_in,
            executor=settings.executor,
            who=getpass.getuser(),
            progress=progress,
        )
    before = f", {done.before} were there before" if done.before else ""
    masked = f", {done.masked} with pixels painted over" if done.masked else ""
    told = f"{done.objects} objects of {done.studies} studies of {done.patients} patients in {out}{before}{masked}"
    show.messages.print(f"{told}\n{NOTE}", markup=False)
    for reason, count in sorted(done.not_exported.items()):
        show.messages.print(f"not exported: {count} {reason}", markup=False)
    for reason, count in sorted(done.refused.items()):
        show.messages.print(f"refused: {count} {reason}", markup=False)
    if done.refused:
        raise typer.Exit(FINISHED_WITH_FAILURES)


@export_app.command("reports")
def export_reports(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="the folder to write")],
    cohort: Cohort = "",
    study: Studies = None,
    everything: Everything = False,
    strict: Annotated[
        bool, typer.Option(help="set reports aside in which something still looks like an identifier")
    ] = True,
) -> None:
    """Report texts with identifiers replaced by [NAME], [DATE 2019-03-01] ...: machine-scrubbed, not anonymous."""
    from phenotype.export.dicom_selection import Selection
    from phenotype.export.scrub import STATEMENT
    from phenotype.export.scrub_folder import export_reports as export

    settings: Settings = context.obj
    with show.progress("export", quiet=settings.quiet) as progress:
        done = export(
            open_database(settings.database),
            out,
            Selection(cohort, tuple(study or ()), everything),
            strict=strict,
            executor=settings.executor,
            who=getpass.getuser(),
            progress=progress,
        )
    replaced = ", ".join(f"{count} {kind}" for kind, count in sorted(done.replaced.items())) or "nothing"
    told = f"{done.reports} reports of {done.patients} patients in {out}: {STATEMENT}\nreplaced: {replaced}"
    show.messages.print(told, markup=False)
    if done.residue:
        left = ", ".join(f"{count} {kind}" for kind, count in sorted(done.residue.items()))
        show.messages.print(f"still looks like an identifier: {left}; set aside: {done.set_aside}", markup=False)
    for reason, count in sorted(done.failed.items()):
        show.messages.print(f"failed: {count} {reason}", markup=False)
    if done.set_aside or done.failed:
        raise typer.Exit(FINISHED_WITH_FAILURES)


export_app.command("model")(export_model)
