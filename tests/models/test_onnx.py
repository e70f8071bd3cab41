"""Every family as ONNX: what the runtime computes is what torch computes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from model_images import normal
from model_trainings import SIZE, Trained

from phenotype.models import MODELS, build
from phenotype.models.files import load_model, read_manifest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from phenotype.models.onnx import OUTPUTS, NotExportable, export_onnx  # noqa: E402

# Their scores are found by gradients in the image or its code, which a graph of operators does not have.
VECTORS_ONLY = {"ac-gan", "anogan", "cgan", "dcgan", "wgan"}
VECTORS_ONLY |= {"coarse-dae", "fused", "planted"}  # computed in 64 bits, for which the runtime has no convolution
REFUSED = {"radiograph", "symmetry", "texture"}  # each image is laid onto the others by a search


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory)


@pytest.mark.parametrize("name", sorted(set(MODELS) - REFUSED))
def test_the_runtime_computes_what_torch_computes(name, trained, tmp_path):
    model = load_model(trained[name])
    outputs = export_onnx(model, tmp_path, {"run": "0123"})
    assert outputs == (OUTPUTS[:1] if name in VECTORS_ONLY else OUTPUTS)
    content = (tmp_path / "model.onnx").read_bytes()
    manifest = read_manifest(tmp_path / "model.onnx.json")
    assert manifest["sha256 of the file"] == hashlib.sha256(content).hexdigest()
    assert (manifest["name"], manifest["outputs"]) == (name, list(outputs))
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        x = torch.from_numpy(normal(count, SIZE, seed=10 + count))
        found = session.run(None, {"images": x.numpy()})
        for mine, theirs in zip([model.embed(x), *model.score(x)], found, strict=False):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_no_graph_is_refused(name, trained, tmp_path):
    with pytest.raises(NotExportable, match=f"{name} cannot be exported to ONNX"):
        export_onnx(load_model(trained[name]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_export_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    """The negative control: a code that depends on the batch."""
    model = build("cae", SIZE)
    monkeypatch.setattr(type(model), "_embed", lambda self, x: self.encoder(x) * x.shape[0] ** 0 * float(len(x) % 2))
    with pytest.raises(NotExportable, match="cae cannot be exported to ONNX"):
        export_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("phenotype.models.onnx.find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(ValueError, match=r"onnxscript: pip install 'phenotype\[onnx\]'"):
        export_onnx(build("cae", SIZE), tmp_path)
