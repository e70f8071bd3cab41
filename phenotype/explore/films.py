"""Images read from their files, once each, as the standardized views that a page shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.orm import Session

from db.queries.gallery import ShownImage
from db.queries.images import ImageFiles, image_files
from phenotype.explore.pictures import View
from phenotype.imaging import window
from phenotype.imaging.cache import read_cached
from phenotype.imaging.files import FileRef, Unreadable

SIZE = 256


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why an image cannot be shown: a code, without personal data."""

    reason: str


@dataclass(slots=True)
class Films:
    """Gives views of images. `session` says where their files lie, and is asked for many at once by `fetch`."""

    session: Session
    cache: Path | None = None  # the folder of decoded pixels
    files: dict[str, ImageFiles] = field(default_factory=dict)
    seen: dict[tuple[str, int], View | Unseen] = field(default_factory=dict)

    def fetch(self, images: Sequence[ShownImage]) -> None:
        """Ask where the files of these images lie."""
        self.files |= image_files(self.session, sorted({i.id for i in images} - self.files.keys()))

    def view(self, image: ShownImage) -> View | Unseen:
        """The slice of an image that is to be shown, in the lung window where it is CT; or why it cannot be."""
        key = image.id, image.slice
        if key not in self.seen:
            if image.id not in self.files:
                self.fetch([image])
            self.seen[key] = _read(self.files.get(image.id), image.slice, self.cache)
        return self.seen[key]


def _read(image: ImageFiles | None, index: int, cache: Path | None) -> View | Unseen:
    if image is None or not image.files:
        return Unseen("no files")
    # the slices of a volume are files in their order: one is enough
    several = len(image.files) > 1
    files = image.files[index : index + 1] if several else image.files
    try:
        pixels = read_cached([FileRef(*file) for file in files], cache).pixels
        plane = pixels if pixels.ndim == 2 else pixels[0 if several else index]
        standardized, frame = window.standardize(plane, image.modality, SIZE)
    except Unreadable as error:
        return Unseen(error.code)
    except Exception as error:  # one damaged file must not cost the page; the message may quote the file
        return Unseen(f"unreadable ({type(error).__name__})")
    return View(standardized, frame, (int(plane.shape[0]), int(plane.shape[1])))
