"""Where things are: the database, and the folder of files beside it."""

from dataclasses import dataclass
from pathlib import Path

from db.session import Database

DEFAULT_DATABASE = "sqlite:///phenotype.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command needs to know.

    `database` is an SQLAlchemy URL; `home` holds what is kept beside the database (trained models); `executor` is
    `here` or `processes:N`.
    """

    database: str = DEFAULT_DATABASE
    home: Path | None = None
    executor: str = "here"
    quiet: bool = False

    def home_of(self, database: Database) -> Path:
        """The folder beside the database: `x.files` beside `x.db`, or `phenotype.files` here."""
        if self.home is not None:
            return self.home
        return database.path.with_suffix(".files") if database.path else Path("phenotype.files")
