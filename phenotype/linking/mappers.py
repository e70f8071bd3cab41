"""The term mappers by name, one line each; `tests/linking/test_mapper_contract.py` holds them to one contract."""

from typing import Any

from phenotype.linking.mil import NoisyOr
from phenotype.linking.profiles import Ferns

MAPPERS: dict[str, type[Any]] = {
    "ferns": Ferns,
    "noisy-or": NoisyOr,
}
