"""The term mappers by name, one line each; `tests/linking/test_mapper_contract.py` holds them to one contract."""

from inspect import signature
from typing import Any

from phenotype.linking.attention import GatedAttention
from phenotype.linking.combined import Combined
from phenotype.linking.inherited import InheritedLogistic
from phenotype.linking.linear import Linear
from phenotype.linking.location import Location
from phenotype.linking.mil import LogSumExp, NoisyOr, TopK
from phenotype.linking.patch_cnn import PatchCnn
from phenotype.linking.profiles import Ferns

DEFAULT = "combined"

MAPPERS: dict[str, type[Any]] = {
    "combined": Combined,  # the default: ferns and a network
    "ferns": Ferns,  # semantic profiles (Hofmanninger and Langs 2015)
    "noisy-or": NoisyOr,
    "log-sum-exp": LogSumExp,
    "top-k": TopK,
    "linear": Linear,  # for some hundred images, and features that compare one side of the body with the other
    "attention": GatedAttention,  # baselines from here on
    "inherited-logistic": InheritedLogistic,
    "patch-cnn": PatchCnn,  # takes patches for features (Schlegl et al. 2015)
    "location": Location,
}


def build(name: str, **settings: Any) -> Any:
    """A new mapper of this kind; settings that the kind does not have are left out. KeyError for an unknown name."""
    kind = MAPPERS[name]
    return kind(**{key: value for key, value in settings.items() if key in signature(kind).parameters})
