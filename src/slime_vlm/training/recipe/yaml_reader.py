"""Build the dataclasses of a recipe from YAML and `--set`, with every key and value checked."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from slime_vlm.errors import ConfigError, nearest
from slime_vlm.model.configuration_fields import CHOICES, SlimeFields
from slime_vlm.training.recipe.rules import Rule, hints_of


class _Yaml(yaml.SafeLoader):
    """YAML with the numbers of version 1.2. Version 1.1 reads 1e-3 (without a dot) as text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ConfigError: The file is missing or is not YAML.
    """
    if not path.is_file():
        raise ConfigError(f"no recipe at {path}: give the path of a YAML file, or a name that slime recipes list shows")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Yaml)  # noqa: S506  (a safe loader, with checks of its own)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def override(raw: Any, key: str, value: str) -> None:
    """Set one value of plain data, in place.

    Args:
        raw: Keys and values. An item of a list is addressed by its name.
        key: A dotted key, such as `stages.encoder.steps`.
        value: A YAML value.

    Raises:
        ConfigError: The value is not YAML, or the key does not exist.
    """
    try:
        parsed = yaml.load(value, _Yaml)  # noqa: S506  (a safe loader, with checks of its own)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"--set {key}={value}: {' '.join(str(error).split())}; expected a YAML value, such as 3 or [1, 2]"
        ) from error
    node, parts = raw, key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            names = [str(item.get("name")) for item in node if isinstance(item, dict)]
            if part not in names:
                raise ConfigError(f"--set {key}: no stage '{part}'; {nearest(part, names)}")
            node = node[names.index(part)]
        elif not isinstance(node, dict):
            raise ConfigError(f"--set {key}: '{'.'.join(parts[:depth])}' has no keys of its own")
        elif last:
            node[part] = parsed
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]


def build(kind: Any, raw: Any, where: str, problems: list[str]) -> Any:
    """Build the dataclass `kind` from plain data. Collect all problems rather than stop at the first.

    Args:
        kind: A dataclass whose fields may have rules, see `rules.py`.
        raw: Keys and values.
        where: Their dotted key, for messages; empty for the whole recipe.
        problems: List that problems are added to.

    Returns:
        The dataclass, or None if there are problems.
    """
    if not isinstance(raw, dict):
        problems.append(f"'{where or 'the recipe'}' is {type(raw).__name__}, expected keys and values")
        return None
    hints, fields = get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in fields:
            problems.append(f"unknown key '{name}': {nearest(str(key), list(fields))}")
        else:
            values[key] = _checked(hints[key], fields[key].metadata, value, name, problems)
    for name, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in raw:
            problems.append(f"missing key '{where + '.' if where else ''}{name}'")
    return kind(**values) if not problems else None


def _checked(hint: Any, metadata: Mapping[str, Any], value: Any, name: str, problems: list[str]) -> Any:
    """Convert the value of a field and check it against the field's metadata."""
    before = len(problems)
    converted = _convert(hint, value, name, problems)
    if len(problems) > before or converted is None:
        return converted
    rule: Rule | None = metadata.get("rule")
    if rule is not None and not rule.fits(converted):
        problems.append(f"'{name}' is {converted!r}, expected {rule.expected}")
    return _values_of(metadata["kind"], converted, name, problems) if "kind" in metadata else converted


def _values_of(kind: type, values: dict[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """Convert and check the values of some fields of `kind`."""
    hints = hints_of(kind)
    converted: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}"
        if key not in hints:
            problems.append(f"unknown key '{name}': {nearest(str(key), hints)}")
        elif key == "projector_vocabulary" and value == "pages":
            converted[key] = value
        elif kind is SlimeFields and key in CHOICES and value not in CHOICES[key]:
            problems.append(f"'{name}' is {value!r}, expected one of {', '.join(CHOICES[key])}")
        else:
            converted[key] = _convert(hints[key], value, name, problems)
    return converted


def _convert(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        options = [o for o in get_args(hint) if o is not type(None)]
        optional = len(options) < len(get_args(hint))
        return None if value is None and optional else _convert(options[0], value, name, problems)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name, problems)
    if origin in (list, tuple):
        if not isinstance(value, list):
            problems.append(f"'{name}' is {value!r}, expected a list")
            return []
        inner = get_args(hint)[0]
        labels = [v.get("name", i) if isinstance(v, dict) else i for i, v in enumerate(value)]
        return [_convert(inner, v, f"{name}.{label}", problems) for label, v in zip(labels, value, strict=True)]
    if origin is dict:
        if not isinstance(value, dict):
            problems.append(f"'{name}' is {value!r}, expected keys and values")
            return {}
        inner = get_args(hint)[1]
        return {key: _convert(inner, item, f"{name}.{key}", problems) for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        problems.append(f"'{name}' is {value!r}, expected {hint.__name__}")
    return value
