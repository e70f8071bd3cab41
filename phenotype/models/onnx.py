"""Trained models as ONNX, for programs without torch: images in, vectors, scores and maps out.

What is written was run and compared with the model itself: an export that computes something else is refused.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phenotype.models.base import ImageModel
from phenotype.models.files import FORMAT, write_manifest, write_whole

OUTPUTS = ("vectors", "scores", "maps")  # (n, d), (n,) and (n, *spatial)
NEEDED = ("onnx", "onnxscript", "onnxruntime")
RTOL, ATOL = 1e-4, 1e-5  # between torch and the exported graph


class NotExportable(ValueError):
    """What the family computes is no ONNX graph; the message says what was tried."""


class _Graph(nn.Module):
    """A model as a function of its images alone."""

    def __init__(self, model: ImageModel, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        vectors = self.model._embed(images)
        return (vectors,) if self.outputs == OUTPUTS[:1] else (vectors, *self.model._score(images, None))


def export_onnx(model: ImageModel, out: Path, about: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Write `model` to out/model.onnx, for batches of any size, and what it is to out/model.onnx.json.

    Returns its outputs: "vectors", "scores" and "maps", or "vectors" alone where the score is no graph (a search by
    gradients for each image). They equal torch's within 1e-4 relative and 1e-5 absolute, tried on batches of 1, 3 and
    5 images. `about` goes into the manifest. Raises NotExportable where not even the vectors can be exported, and
    ValueError, saying what to install, where the packages for it are missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs the packages {', '.join(missing)}: pip install 'phenotype[onnx]'")
    model = model.to("cpu").eval()
    for outputs in (OUTPUTS, OUTPUTS[:1]):
        try:
            content = _exported(_Graph(model, outputs).eval(), outputs)
            break
        except NotExportable as error:
            refused = error
    else:
        raise NotExportable(f"{model.name} cannot be exported to ONNX: {refused}") from None
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "model.onnx", content)
    low, high = model.input_range
    manifest = {
        "format": FORMAT,
        "file": "model.onnx",
        "sha256 of the file": hashlib.sha256(content).hexdigest(),
        "name": model.name,
        "recipe": asdict(model.recipe),
        "input": {"name": "images", "shape": ["n", 1, *model.recipe.shape], "type": "float32", "range": [low, high]},
        "outputs": list(outputs),
        "software": {name: metadata.version(name) for name in ("phenotype", "torch", *NEEDED)},
        "about": dict(about or {}),
    }
    write_manifest(out / "model.onnx.json", manifest)
    return outputs


def _exported(graph: _Graph, outputs: tuple[str, ...]) -> bytes:
    """The graph as ONNX, compared with itself in torch."""
    shape = (1, *graph.model.recipe.shape)
    example = _images(2, shape, graph.model)
    _in_torch(graph, example)  # what a model computes once and keeps is then a constant of the graph
    try:
        with _quietly():
            program: Any = torch.onnx.export(
                graph,
                (example,),
                input_names=["images"],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
            content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # whatever the exporter may say of a family's code
        raise NotExportable(f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}") from None
    for name in _differing(graph, content, shape):
        raise NotExportable(f"its {name} differ from torch's")
    return content


def _differing(graph: _Graph, content: bytes, shape: tuple[int, ...]) -> Iterator[str]:
    """Outputs in which the runtime does not compute what torch computes."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        images = [_images(count, shape, graph.model) for count in (1, 3, 5)]
        found = [session.run(None, {"images": x.numpy()}) for x in images]
    except Exception as error:  # the runtime's own kinds, which it does not export
        raise NotExportable(f"the runtime refuses it: {type(error).__name__}") from None
    for x, theirs in zip(images, found, strict=True):
        for name, mine, other in zip(graph.outputs, _in_torch(graph, x), theirs, strict=True):
            if mine.shape != other.shape or not np.allclose(mine, other, rtol=RTOL, atol=ATOL):
                yield name


def _in_torch(graph: _Graph, images: Tensor) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        return [values.detach().numpy() for values in graph(images)]


def _images(count: int, shape: tuple[int, ...], model: ImageModel) -> Tensor:
    low, high = model.input_range
    return low + (high - low) * torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without gradients, and without what the exporter says of packages that nobody needs."""
    loud = logging.getLogger("torch.onnx")
    before = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        loud.setLevel(before)
