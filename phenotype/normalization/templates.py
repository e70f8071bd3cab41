"""Several ways to one reference, after Hofmanninger et al. 2017 ("Unsupervised identification of clinically relevant
clusters in routine imaging data" build upon it; the method: multi-template normalization).

Images of routine care differ in field of view, modality and pose, and no one reference suits them all. Templates of
different kinds are registered to the reference once; an image is registered to the reference directly, and only where
that is not good enough to the templates too. Transforms are concatenated, and of all ways the best by its quality is
kept. Directly first, since each link of a chain adds its own error: on images that the direct way suits, chains lose
1 to 10 points of Dice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from phenotype.imaging import grids
from phenotype.imaging.grids import Grid
from phenotype.normalization.volumes import Registration, Volume, quality, register

DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Template:
    """A volume that is registered to the reference."""

    volume: Volume
    to_reference: Registration


@dataclass(frozen=True, slots=True)
class Normalized:
    """How an image came to lie in the reference.

    route     "direct", or the name of the template it went by
    tried     the quality of each way that was tried
    reason    why it was not accepted; empty where it was
    """

    route: str
    quality: float
    accepted: bool
    reason: str
    forward: Grid
    tried: dict[str, float] = field(default_factory=dict)


def normalize(
    image: Volume,
    reference: Volume,
    templates: Callable[[], Mapping[str, Template]],
    *,
    gate: float,
    threshold: float,
    fine: int = 30,
) -> Normalized:
    """Lay an image onto the reference.

    templates  asked for only where the direct way has a quality below `gate`
    threshold  the least quality that is accepted
    fine       steps of the warp at full resolution

    Raises ValueError where the image has nothing in common with the reference nor with any template.
    """
    ways: dict[str, tuple[float, Grid]] = {}
    try:
        direct = register(image, reference, fine=fine)
        ways[DIRECT] = direct.quality, direct.forward
    except ValueError:
        pass
    if DIRECT not in ways or ways[DIRECT][0] < gate:
        for name, template in templates().items():
            way = _by_template(image, reference, template, fine)
            if way is not None:
                ways[name] = way
    if not ways:
        raise ValueError("the image has nothing in common with the reference nor with any template")
    route = max(ways, key=lambda name: ways[name][0])  # of equals the first: the direct one
    best, forward = ways[route]
    reason = _reason(best, forward, threshold)
    tried = {name: value for name, (value, _) in ways.items()}
    return Normalized(route, best, not reason, reason, forward, tried)


def _by_template(image: Volume, reference: Volume, template: Template, fine: int) -> tuple[float, Grid] | None:
    """The quality of the way by a template, and the concatenated grid.

    A chain is as good as what it ends in, compared with the reference itself; but never better than its first link.
    """
    try:
        link = register(image, template.volume, fine=fine)
    except ValueError:
        return None
    forward = grids.compose(link.forward, template.to_reference.forward)
    return min(link.quality, quality(image, reference, forward)), forward


def _reason(best: float, forward: Grid, threshold: float) -> str:
    if grids.in_view(forward) is None:
        return "it shows nothing of the reference"
    if grids.folded(forward) > 0.02:
        return "the warp folds"
    return "" if best >= threshold else f"quality below {threshold:g}"
