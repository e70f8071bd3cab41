"""One page that shows what was found: a single HTML file that needs nothing else, not even a script."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from db.session import Database
from phenotype.explore.pictures import colour_bar_uri
from phenotype.explore.sections import Sections
from phenotype.imaging.cache import cache_folder
from phenotype.stage import Refused

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_page(
    database: Database,
    out: Path,
    *,
    title: str = "What was found",
    images: int = 6,
    scores: Sequence[tuple[str, str, str]] = (),
    home: Path | None = None,
) -> Path:
    """Write the page to the file `out`, whole or not at all, and return its path.

    images  how many of the most anomalous images of each model are shown
    scores  rows (what, value, how it was measured) of a table of how well it did; no table without rows
    home    the folder beside the database, where decoded pixels are kept

    The page holds surrogates of studies and images, and pixels as they were delivered; no accession, date, path or
    word of a report. The same database and files give the same bytes. Raises Refused where it cannot be written.
    """
    if images < 1:
        raise Refused("images", "at least 1 image must be shown")
    with database.reading() as session:
        sections = Sections(session, images, cache_folder(home) if home else None)
        html = template("page.html.jinja").render(
            title=title,
            policy=POLICY,
            overview=sections.overview(),
            findings=sections.findings(),
            anomalies=sections.anomalies(),
            terms=sections.terms(),
            phenotypes=sections.phenotypes(),
            scores=scores,
            bar=colour_bar_uri(),
        )
    write_whole(out, html.encode())
    return out


def template(name: str) -> Template:
    """A page of `templates/`, everything that is put into it escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_whole(out: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises Refused where it cannot be written."""
    beside = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise Refused("page", f"{out.name} cannot be written: {error.strerror}") from None
