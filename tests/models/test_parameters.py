"""Parameters as people write them."""

import pytest
from model_trainings import every_model

from phenotype.models import build
from phenotype.models.parameters import known_parameters, parameters_text, parse_parameters


@every_model
def test_what_is_listed_is_read_again(name):
    assert parse_parameters(name, parameters_text(name)) == known_parameters(name)
    assert parse_parameters(name, "") == {}


def test_values_have_their_kind():
    found = parse_parameters("cae", " latent=8, ssim_weight=2 ,term=residual,")
    assert found == {"latent": 8, "ssim_weight": 2.0, "term": "residual"}
    assert type(found["ssim_weight"]) is float
    assert build("cae", 16, **found).recipe.latent == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latnet=8", r"'latnet=8' is no parameter of cae; .*latent=32,width=16,"),
        ("latent", "'latent' is no parameter"),
        ("size=32", "'size=32' is no parameter"),
        ("latent=8,latent=9", "'latent' is given twice"),
        ("latent=8.5", "'latent' must be a whole number, not '8.5'"),
        ("ssim_weight=much", "'ssim_weight' must be a number, not 'much'"),
        ("term=best", "'term' must be one of residual, ssim, both, not 'best'"),
    ],
)
def test_what_is_wrong_is_named(text, told):
    with pytest.raises(ValueError, match=told):
        parse_parameters("cae", text)
