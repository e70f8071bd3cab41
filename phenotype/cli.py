"""The command line: a command for each stage, its options made from the stage's fields; and questions.

Data goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 error, 2 usage, 3 finished, but some
subjects failed or were quarantined, 130 interrupted (143 by SIGTERM, where that waits for a checkpoint).
"""

import inspect
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from sqlalchemy.exc import SQLAlchemyError

from db.console import QueryError, ask
from db.queries import findings as finding_queries
from db.queries import overview
from db.session import HEAD, Database, DatabaseError, open_database, revision, upgrade
from nlp.tables import LexiconError
from phenotype import show
from phenotype.commands import ledger
from phenotype.commands.expert import expert_app
from phenotype.commands.export import export_app
from phenotype.commands.models import list_models
from phenotype.commands.pacs import COMMANDS as PACS_COMMANDS
from phenotype.commands.similar import similar_cases
from phenotype.commands.steps import FINISHED_WITH_FAILURES, run_steps
from phenotype.commands.where import where
from phenotype.executors import describe
from phenotype.pipeline import STAGES, STANDARD, VOLUMES, Step, make_stage, read_pipeline, stage_class
from phenotype.settings import DEFAULT_DATABASE, Settings
from phenotype.show import Csv, Json
from phenotype.stage import Refused, stage_fields

# what SQLite calls it where no more can be written
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN"}


class _Group(typer.core.TyperGroup):
    """Every error that a person can mend is one line that says how."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            show.messages.print("stopped; the same command continues", markup=False)
            raise typer.Exit(128 + getattr(stop, "signal", signal.SIGINT)) from None
        except (Refused, DatabaseError, QueryError, LexiconError) as error:
            show.messages.print(str(error), style="red", markup=False)
            raise typer.Exit(1) from None
        except (SQLAlchemyError, sqlite3.Error) as error:
            # its message quotes the values of the statement; SQLite's own name of the error quotes nothing
            name = getattr(getattr(error, "orig", error), "sqlite_errorname", type(error).__name__)
            full = ": is there space left on its disk? The same command continues" if name in _FULL else ""
            show.messages.print(f"the database failed ({name}){full}", style="red", markup=False)
            raise typer.Exit(1) from None
        except BrokenPipeError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError) as error:
            failure = describe(error)  # its kind and place, but not its message: those quote paths and values
            why = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            told = f"this was not foreseen: {failure.reason}{why}, in\n{failure.traceback}"
            show.messages.print(told, style="red", markup=False)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    help="From a PACS export to findings in SQL, image features, term maps and phenotypes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local values would show personal data
    add_completion=False,
)
database_app = typer.Typer(help="The database itself.", no_args_is_help=True)
app.add_typer(database_app, name="db")
app.add_typer(export_app, name="export", rich_help_panel="Questions")
app.add_typer(expert_app, name="expert", rich_help_panel="Questions")
for _name, _command in PACS_COMMANDS.items():
    app.command(_name, rich_help_panel="Stages")(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"phenotype {metadata.version('phenotype')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    db: Annotated[str, typer.Option(envvar="PHENOTYPE_DB", help="the database, an SQLAlchemy URL")] = DEFAULT_DATABASE,
    home: Annotated[
        Path | None, typer.Option(envvar="PHENOTYPE_HOME", help="the folder of models; by default beside the database")
    ] = None,
    executor: Annotated[
        str, typer.Option(envvar="PHENOTYPE_EXECUTOR", help="where to compute: here, or processes:N")
    ] = "here",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which this is")
    ] = False,
) -> None:
    """Options of every command; they stand before its name."""
    os.umask(0o077)  # all that is written comes of personal data: who shares it says so by its rights
    context.obj = Settings(db, home, executor, quiet)


def _stage_command(name: str) -> Callable[..., None]:
    """A command whose options are the fields of a stage."""
    kind = stage_class(name)

    def command(context: typer.Context, **values: Any) -> None:
        if name != "ingest":
            run_steps(context.obj, [Step(make_stage(name, values))])
            return
        sources = tuple(str(source) for source in values.pop("sources") or ())
        page = values.pop("report")
        if not sources and not page:
            raise typer.BadParameter("name a folder, an archive or a file; or --report, to see what was taken in")
        steps = [Step(make_stage(name, values), sources), Step(make_stage("assemble", {}))]
        try:
            run_steps(context.obj, steps if sources else [])
        finally:
            if page:
                _write_intake(context.obj, page)

    parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    if name == "ingest":
        what = Annotated[list[Path] | None, typer.Argument(help="folders, zip or tar archives, or files", exists=True)]
        told = Annotated[Path | None, typer.Option(help="write a page that explains what was taken in, as HTML")]
        for option, kind_of in (("sources", what), ("report", told)):
            place = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(option, place, default=None, annotation=kind_of))
    for field in stage_fields(kind):
        annotation: Any = Annotated[type(field.default), typer.Option(help=field.metadata["help"])]
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = inspect.getdoc(kind)
    return command


def _write_intake(settings: Settings, page: Path) -> None:
    from phenotype.explore.intake import write_intake

    written = write_intake(open_database(settings.database), page)
    show.messages.print(f"wrote {written}", markup=False)


@app.command(rich_help_panel="Pipelines")
def init(
    source: Annotated[Path, typer.Argument(help="the export: a folder or a zip archive", exists=True)],
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("pipeline.toml"),
) -> None:
    """Write a pipeline file for an export, to be read, changed and run."""
    if out.exists():
        raise Refused("exists", f"{out} is there already; choose another with --out")
    path = json.dumps(source.resolve().as_posix(), ensure_ascii=False)  # a TOML string, whatever is in it
    out.write_text(STANDARD.format(name=out.name, sources=path), encoding="utf-8")
    show.messages.print(f"wrote {out}; now: phenotype run {out}", markup=False)


@app.command(rich_help_panel="Pipelines")
def run(context: typer.Context, pipeline: Annotated[Path, typer.Argument(help="a pipeline file", exists=True)]) -> None:
    """Run all stages of a pipeline file; run again, it continues where it was stopped."""
    run_steps(context.obj, read_pipeline(pipeline))


@app.command(rich_help_panel="Pipelines")
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="the folder to write")] = Path("demo"),
    studies: Annotated[int, typer.Option(help="radiographs")] = 320,
    volumes: Annotated[int, typer.Option(help="CT volumes")] = 20,
    seed: Annotated[int, typer.Option(help="of all that is made up")] = 0,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Make an export of phantoms, run the whole pipeline over it, and compare the result with what was planted."""
    from phenotype.demo.export import write_export
    from phenotype.demo.measure import Measure, measure
    from phenotype.demo.truth import read_truth
    from phenotype.explore.page import write_page

    settings: Settings = context.obj
    export = out / "export"
    if not export.is_dir():
        out.mkdir(parents=True, exist_ok=True)
        beside = out / "export.part"  # renamed when whole, so that a demo that was stopped begins anew
        for part in (beside, out / "export.part.truth", out / "export.truth"):
            shutil.rmtree(part, ignore_errors=True)
        with show.progress("making an export", quiet=settings.quiet) as progress:
            write_export(
                beside, studies=studies, volumes=volumes, seed=seed, progress=lambda done, of: progress(done, of, "")
            )
        (out / "export.part.truth").rename(out / "export.truth")
        beside.rename(export)
    url = f"sqlite:///{out / 'phenotype.db'}"
    pipeline = out / "pipeline.toml"
    told = STANDARD.format(name=pipeline, sources="'export'") + VOLUMES
    coarse = 'run = "normalize"\nspacing = 8.0  # phantoms are smooth'
    pipeline.write_text(told.replace('run = "normalize"', coarse), encoding="utf-8")
    run_steps(
        Settings(url, out / "phenotype.files", settings.executor, settings.quiet), read_pipeline(pipeline), strict=False
    )
    database = open_database(url)
    with database.reading() as session:
        models = ("f-anogan-image", "cae-normal", "cae-ct")
        rows = measure(session, read_truth(out / "export.truth"), models)
    cells = [
        (row.what, f"{row.value:.2f}", row.how if row.chance is None else f"{row.how}; by chance {row.chance:.2f}")
        for row in rows
    ]
    page = write_page(database, out / "demo.html", title="phenotype demo", scores=cells, home=out / "phenotype.files")
    show.records(rows, Measure, as_json, as_csv)
    show.messages.print(f"look at {page}, or ask: phenotype --db {url} findings", markup=False)


@app.command(rich_help_panel="Pipelines")
def page(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="the HTML file to write")] = Path("phenotype.html"),
    images: Annotated[int, typer.Option(help="pictures in a row")] = 6,
) -> None:
    """Write a page to look at: anomalies, term maps over images, phenotypes with their terms."""
    from phenotype.explore.page import write_page

    database = open_database(context.obj.database)
    written = write_page(database, out, images=images, home=context.obj.home_of(database))
    show.messages.print(f"wrote {written}", markup=False)


@app.command(rich_help_panel="Questions")
def status(context: typer.Context, as_json: Json = False, as_csv: Csv = False) -> None:
    """What there is and what was run."""
    database = open_database(context.obj.database)
    with database.reading() as session:
        if not (as_json or as_csv):
            show.records(overview.counts(session), overview.Counts, False, False)
        show.records(overview.run_states(session), overview.RunState, as_json, as_csv)


@app.command(rich_help_panel="Questions")
def files(context: typer.Context, as_json: Json = False, as_csv: Csv = False) -> None:
    """What became of each file and report that was delivered."""
    with open_database(context.obj.database).reading() as session:
        show.records(overview.file_states(session), overview.FileState, as_json, as_csv)


app.command("models", rich_help_panel="Questions")(list_models)
app.command("similar", rich_help_panel="Questions")(similar_cases)
app.command("where", rich_help_panel="Questions")(where)
app.command(rich_help_panel="Stages")(ledger.retry)
app.command(rich_help_panel="Questions")(ledger.paths)
app.command(rich_help_panel="Questions")(ledger.text)


@app.command(rich_help_panel="Questions")
def failures(context: typer.Context, as_json: Json = False, as_csv: Csv = False) -> None:
    """Why subjects failed."""
    with open_database(context.obj.database).reading() as session:
        show.records(overview.failure_reasons(session), overview.FailureReason, as_json, as_csv)


@app.command(rich_help_panel="Questions")
def findings(
    context: typer.Context,
    concept: Annotated[str, typer.Option(help="a concept, by id or name")] = "",
    assertion: Annotated[str, typer.Option(help="present, absent or uncertain")] = "",
    study: Annotated[str, typer.Option(help="the id of a study")] = "",
    limit: Annotated[int, typer.Option(help="how many rows at most")] = 100,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """What the reports say."""
    with open_database(context.obj.database).reading() as session:
        rows = finding_queries.findings(session, concept=concept, assertion=assertion, study=study, limit=limit)
        show.records(rows, finding_queries.FindingRow, as_json, as_csv)


@app.command(rich_help_panel="Questions")
def disagreements(
    context: typer.Context,
    concept: Annotated[str, typer.Option(help="a concept, by id or name")] = "",
    said: Annotated[str, typer.Option(help="what the rules say: present, absent or 'not mentioned'")] = "",
    limit: Annotated[int, typer.Option(help="how many rows at most")] = 100,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Reports that the rules and the text classifier read differently, for a person to look at."""
    with open_database(context.obj.database).reading() as session:
        rows = finding_queries.disagreements(session, concept=concept, said=said, limit=limit)
        show.records(rows, finding_queries.Disagreement, as_json, as_csv)


@app.command(rich_help_panel="Questions")
def read(
    files: Annotated[list[Path], typer.Argument(help="reports as text files; - for standard input", allow_dash=True)],
    html: Annotated[Path | None, typer.Option(help="write a page that shows what was read where")] = None,
    language: Annotated[str, typer.Option(help="of the reports; auto finds it out")] = "auto",
    lexicon: Annotated[Path | None, typer.Option(help="your own words: a table or a folder", exists=True)] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Read reports from text files, without a database: what is said of what, and which words say so."""
    from nlp.lexicon import concepts, sites
    from nlp.reader import Reader
    from nlp.values import as_dict
    from phenotype.explore.reading import BRIEF, row, write_reading
    from phenotype.ingest.tables import decode

    for path in files:
        if str(path) != "-" and not path.is_file():
            raise Refused("no_file", f"{path} is no file; name reports as text files, or - for standard input")
    texts = [decode(sys.stdin.buffer.read() if str(f) == "-" else f.read_bytes())[0] for f in files]
    readings = list(Reader(language, lexicon).read(texts))
    names = {site.id: site.name for site in sites(lexicon)} | {c.id: c.name for c in concepts(lexicon)}
    titles = [f"Report {number}" if len(files) > 1 else "" for number in range(1, len(files) + 1)]
    if as_json:
        show.document([{"report": t, **as_dict(r)} for t, r in zip(titles, readings, strict=True)])
    else:
        rows = [
            {"report": title} | row(text, mention, names)
            for title, text, reading in zip(titles, texts, readings, strict=True)
            for mention in reading.mentions
        ]
        columns = list(rows[0]) if rows and as_csv else [c for c in BRIEF if any(r[c] for r in rows)]
        show.answer(columns, [[r[c] for c in columns] for r in rows], as_json=False, as_csv=as_csv)
    if html:
        written = write_reading(zip(titles, texts, readings, strict=True), names, html)
        show.messages.print(f"wrote {written}: it shows report text", markup=False)
    unread = sum(not reading.language for reading in readings)
    if unread:
        show.messages.print(
            f"{unread} of {len(files)}: no language recognised, not read; --language names it", markup=False
        )
        raise typer.Exit(FINISHED_WITH_FAILURES)


@app.command(rich_help_panel="Questions")
def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="a SELECT over the views of docs/sql.md")],
    limit: Annotated[int, typer.Option(help="how many rows at most")] = 10_000,
    seconds: Annotated[float, typer.Option(help="how long it may take")] = 30.0,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Ask in SQL. Read-only, and without a way to personal data."""
    found = ask(open_database(context.obj.database), query, limit=limit, seconds=seconds)
    show.answer(found.columns, found.rows, as_json=as_json, as_csv=as_csv)
    if found.cut:
        show.messages.print(f"only the first {limit} rows; --limit shows more", markup=False)


@database_app.command("upgrade")
def db_upgrade(context: typer.Context) -> None:
    """Bring the tables to the version that this program needs."""
    database = Database(context.obj.database)
    before = revision(database.engine)
    upgrade(database)
    show.messages.print(f"from {before or 'nothing'} to {HEAD}", markup=False)


def main() -> None:
    """Run the command line. Only the room whose command is asked for is imported; help needs them all."""
    # threads that wait by spinning take the cores from those that work, wherever something else runs too
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    others = {"init", "run", "status", "files", "failures", "findings", "disagreements", "sql", "db", "demo", "page"}
    others |= {"read", "export", "models", "retry", "paths", "text", "similar", "expert", "where", *PACS_COMMANDS}
    words = set(sys.argv[1:])
    for name in STAGES:
        if name in words or not words & (others | set(STAGES)):
            app.command(name, rich_help_panel="Stages")(_stage_command(name))
    app()
