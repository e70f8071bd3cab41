"""A family's parameters as a person writes them: `latent=32,width=16,term=ssim`."""

from __future__ import annotations

import types
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from phenotype.models import model_class

GIVEN = ("size", "dims")  # said by what an image is, not by who trains


def known_parameters(name: str) -> dict[str, Any]:
    """The parameters of the family `name` with their defaults; ValueError for an unknown family."""
    return {f.name: f.default for f in fields(model_class(name).recipe_type) if f.name not in GIVEN}


def parameters_text(name: str) -> str:
    """The parameters of the family `name` with their defaults, as `parse_parameters` reads them."""
    return ",".join(f"{key}={_written(default)}" for key, default in known_parameters(name).items())


def parse_parameters(name: str, text: str) -> dict[str, Any]:
    """What `text` says of the family `name`, as its recipe wants it: numbers as numbers; nothing for nothing.

    `text` is FIELD=VALUE, separated by commas; a field of several numbers is written as in 64x32x2. ValueError names
    the field that is unknown, doubled or has a value of another kind, and the known ones.
    """
    known = known_parameters(name)
    kinds = get_type_hints(model_class(name).recipe_type)
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or field not in known:
            raise ValueError(
                f"'{part}' is no parameter of {name}; write FIELD=VALUE with a field of: {parameters_text(name)}"
            )
        if field in found:
            raise ValueError(f"'{field}' is given twice")
        found[field] = _value(field, value, kinds[field])
    return found


def _value(field: str, text: str, kind: Any) -> Any:
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        values = {str(option): option for option in options}
        if text not in values:
            raise ValueError(f"'{field}' must be one of {', '.join(values)}, not '{text}'")
        return values[text]
    if origin in (Union, types.UnionType):
        return None if text == "none" and type(None) in options else _value(field, text, options[0])
    if origin is tuple:
        return tuple(_value(field, piece, options[0]) for piece in text.split("x"))
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"'{field}' must be true or false, not '{text}'")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        what = {int: "a whole number", float: "a number"}.get(kind, "another kind of value")
        raise ValueError(f"'{field}' must be {what}, not '{text}'") from None


def _written(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
