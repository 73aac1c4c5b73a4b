"""Turns what pydantic finds wrong into sentences for people: the field's full path, what was found, what to write instead."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from matwm.spelling import close, nearest


def sentences(error: ValidationError, schema: type[BaseModel], prefix: str, also_known: Sequence[str] = ()) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong; `prefix` goes before every path, `also_known` are keys beside the schema's."""
    misspelt: set[str] = set()
    for entry in error.errors():
        if entry["type"] == "extra_forbidden":
            section = entry["loc"][:-1]
            known = _keys_at(schema, section, also_known)
            misspelt |= {".".join(map(str, (*section, key))) for key in close(str(entry["loc"][-1]), known)}
    for entry in error.errors():
        path = (prefix + ".".join(str(part) for part in entry["loc"])).rstrip(".")
        value = entry["input"]
        match entry["type"]:
            case "missing":
                if ".".join(map(str, entry["loc"])) not in misspelt:  # The misspelt key's own sentence names it.
                    yield f"{path} is missing"
            case "extra_forbidden":
                yield f"{path} is unknown{nearest(str(entry['loc'][-1]), _keys_at(schema, entry['loc'][:-1], also_known))}"
            case "value_error":
                lines = str(entry.get("ctx", {})["error"]).split("\n")
                yield from (line if line.startswith(path) else f"{path}: {line}" for line in lines)
            case "model_type" | "model_attributes_type" | "dict_type":
                yield f"{path or 'the file'} is {value!r}: expected a section with keys"
            case "too_short" | "too_long" if len(value) and (limits := entry.get("ctx", {})):
                expected = limits.get("min_length") or limits.get("max_length")
                yield f"{path} is {value!r}, which has {len(value)} entries, but should have {expected}"
            case "too_short" | "string_too_short":
                yield f"{path} is {value!r}, but should not be empty"
            case "int_type" if isinstance(value, str) and (number := _number(value)) is not None and number.is_integer():
                yield f"{path} is the text {value!r}, not a whole number: write {int(number)}"
            case "float_type" if isinstance(value, str) and (number := _number(value)) is not None:
                reading = "YAML reads 3e-5 as text, 3.0e-5 as a number"
                yield f"{path} is the text {value!r}, not a number: write {plain_number(number)} ({reading})"
            case _:
                message = entry["msg"].removeprefix("Input ")
                yield f"{path} is {value!r}, but {message}"


def plain_number(number: float) -> str:
    """Return a number as every reader of YAML sees one: with a point before the exponent."""
    text = repr(number)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _keys_at(schema: type[BaseModel], location: tuple[int | str, ...], also_known: Sequence[str]) -> list[str]:
    """Return the keys that the section at a location knows."""
    current: Any = schema
    for part in location:
        if not isinstance(current, type) or not issubclass(current, BaseModel):  # a key or an index: what it leads to is known
            continue
        for name, info in current.model_fields.items():
            if part in (name, info.alias):
                current = info.annotation
        while arguments := get_args(current):  # a list's or a dict's sections, or a section that may be null
            current = next((one for one in arguments if get_args(one) or (isinstance(one, type) and issubclass(one, BaseModel))), None)
    keys = [info.alias or name for name, info in current.model_fields.items()]
    return keys if location else [*keys, *also_known]
