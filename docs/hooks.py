"""Generate the site's reference pages while MkDocs builds it.

Commands come from the Typer application, recipe keys from the dataclasses that read a recipe, and the Python API from
docstrings. Nothing is listed by hand, so a page cannot lag behind the code.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "slime_vlm"
# Packages that are pages of their own below reference/api. `cli` is on the page of commands.
UNDOCUMENTED = {"cli"}
# What to call the value of an option.
_VALUES = {bool: "", int: "integer", float: "number", str: "text", Path: "path"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder docs."""
    from mkdocs.structure.files import File

    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def generated_pages() -> dict[str, str]:
    """Return the Markdown of every generated page by its path below docs."""
    # MkDocs restores sys.path after it has loaded this file, so the path is set here.
    if str(SOURCE) not in sys.path:
        sys.path.insert(0, str(SOURCE))
    # Every model inside the package has a card.
    cards = sorted((PACKAGE / "checkpoints").glob("*/README.md"))
    return {
        **{f"{card.parent.name}.md": card.read_text(encoding="utf-8") for card in cards},
        "reference/commands.md": commands_page(),
        "reference/recipes.md": recipes_page(),
        **api_pages(),
    }


# Commands


def commands_page() -> str:
    """Return the page of every command, argument and option."""
    import typer

    from slime_vlm.cli import app

    parts = ["# Commands", "Generated from the command line itself: `slime COMMAND --help` prints the same."]
    root = typer.main.get_command(app)
    for names, command in _walk("slime", root):
        parts += [f"{'#' * min(names.count(' ') + 2, 4)} {names}", *_command_text(names, command)]
    return "\n\n".join(parts) + "\n"


def _walk(names: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield names, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(f"{names} {name}", child)


def _command_text(names: str, command: Any) -> list[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option" and item.name != "help"]
    usage = [names, *(_metavar(item) + " …" * (item.nargs == -1) for item in arguments)]
    usage += [f"{item.opts[0]} {item.metavar or item.opts[0][2:].upper()}" for item in options if item.required]
    usage.append("COMMAND" if getattr(command, "commands", {}) else "[OPTIONS]" if options else "")
    parts = [*_help_text(command.help or "")]
    parts.insert(1, f"```text\n{' '.join(usage).strip()}\n```")
    if arguments:
        rows = [[f"`{_metavar(item)}`", _meaning(item)] for item in arguments]
        parts.append(_table(["Argument", "Meaning"], rows))
    if options:
        hints = get_type_hints(inspect.unwrap(command.callback))
        rows = [
            [_option_names(item), _value_of(item, hints[item.name]), _default_of(item), _meaning(item)]
            for item in options
        ]
        parts.append(_table(["Option", "Value", "Default", "Meaning"], rows))
    return parts


def _help_text(text: str) -> list[str]:
    """Turn a command's help into Markdown: examples become blocks of code."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        line = " ".join(paragraph.split())
        example = re.match(r"Examples?: `?(slime [^`]*)`?$", line)
        if example:
            commands = re.sub(r" (?=slime [a-z]+ )", "\n", example[1])
            parts.append(f"```bash\n{commands}\n```")
        elif line:
            parts.append(line)
    return parts or [""]


def _metavar(item: Any) -> str:
    return str(item.metavar or item.name).strip("{}[].").upper().replace("-", "_")


def _option_names(item: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted([*item.opts, *item.secondary_opts], key=len, reverse=True))


def _value_of(item: Any, hint: Any) -> str:
    """Describe the value of an option: its type in words and its limits."""
    kinds = [kind for kind in (hint, *get_args(hint)) if kind in _VALUES or _choices(kind)]
    kind = kinds[0] if kinds else str
    if kind is bool:
        return ""
    choices = _choices(kind)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    # Newer versions of Typer keep the limits on the parameter, older ones on its type.
    limits = [getattr(item, name, getattr(getattr(item, "type", None), name, None)) for name in ("min", "max")]
    words = [
        f"{word} {limit:g}" for word, limit in zip(("at least", "at most"), limits, strict=True) if limit is not None
    ]
    return ", ".join([f"`{item.metavar}`" if item.metavar else _VALUES[kind], *words])


def _choices(kind: Any) -> list[str]:
    return [str(choice.value) for choice in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _default_of(item: Any) -> str:
    if isinstance(item.show_default, str):
        return item.show_default
    if item.required:
        return "required"
    if item.is_flag or item.default in (None, "", [], ()):
        return ""
    return f"`{item.default}`"


def _meaning(item: Any) -> str:
    several = " Repeatable." if getattr(item, "multiple", False) and "repeat" not in (item.help or "").lower() else ""
    variable = f" Environment variable: `{item.envvar}`." if getattr(item, "envvar", None) else ""
    return f"{item.help or ''}{several}{variable}"


# Recipe keys


def recipes_page() -> str:
    """Return the page of every key of a recipe, with its type, default, rule and meaning."""
    from slime_vlm.training.recipe.schema import Recipe

    introduction = (
        "A recipe is a YAML file that `slime train` reads. This page is generated from the dataclasses that read it"
        " (`slime_vlm.training.recipe.schema`), so every key that a recipe may have is here."
        " An unknown key or a value outside of its rule is an error that names the key."
        " [Train with recipes](../training.md) explains how the keys work together."
    )
    parts = ["# Recipe keys", introduction]
    paths = {kind: path for path, kind in _sections("", Recipe, set())}
    for kind, path in paths.items():
        title = f"`{path}`" if path else "Top level"
        summary, meanings = _documented(kind)
        table = _table(["Key", "Type", "Default", "Meaning"], _key_rows(kind, meanings, paths))
        parts += [f"## {title} {{ #{_anchor(path)} }}", summary, table]
    return "\n\n".join(parts) + "\n"


def _nested(field: dataclasses.Field[Any], hint: Any) -> type | None:
    """Return the dataclass whose keys a field holds, None for a plain value."""
    if "kind" in field.metadata:
        return field.metadata["kind"]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    found = (_nested(field, inner) for inner in get_args(hint))
    return next((kind for kind in found if kind), None)


def _sections(path: str, kind: type, seen: set[type]) -> Iterator[tuple[str, type]]:
    """Yield the path and the dataclass of every mapping of a recipe; each dataclass once."""
    seen.add(kind)
    yield path, kind
    for field, hint in _fields(kind):
        found = _nested(field, hint)
        if found and found not in seen:
            item = "[]" if "list[" in str(hint) else ""
            yield from _sections(f"{path}.{field.name}{item}".lstrip("."), found, seen)


def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = inspect.get_annotations(kind, eval_str=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind) if field.name in hints]


def _key_rows(kind: type, meanings: dict[str, str], paths: dict[type, str]) -> list[list[str]]:
    from slime_vlm.model.configuration_fields import CHOICES, SlimeFields

    rows = []
    for field, hint in _fields(kind):
        found, rule = _nested(field, hint), field.metadata.get("rule")
        meaning = meanings.get(field.name, "")
        if found:
            meaning += f" Keys: [`{paths[found]}`](#{_anchor(paths[found])})."
        elif rule:
            meaning += f" Expected: {rule.expected}."
        elif kind is SlimeFields and field.name in CHOICES:
            meaning += f" Expected: {', '.join(CHOICES[field.name])}."
        rows.append([f"`{field.name}`", _type_text(hint), _field_default(field), meaning.strip()])
    return rows


def _anchor(path: str) -> str:
    return re.sub(r"\W+", "-", path).strip("-").replace("_", "-") or "top-level"


def _type_text(hint: Any) -> str:
    """Name the type of a key in the words of YAML."""
    inner = get_args(hint)
    if get_origin(hint) is list:
        return f"list of {_type_text(inner[0])}s"
    if get_origin(hint) is tuple:
        return f"list of {len(inner)} {_type_text(inner[0])}s"
    if get_origin(hint) is dict or dataclasses.is_dataclass(hint):
        return "mapping"
    if inner:
        return " or ".join(_type_text(item) for item in inner)
    return {Any: "any", type(None): "null", bool: "true or false", int: "integer", float: "number", str: "text"}[hint]


def _field_default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def _documented(kind: type) -> tuple[str, dict[str, str]]:
    """Return the summary of a dataclass and the meaning of each field.

    Meanings stand either below the fields or in the section `Attributes:` of the class.
    """
    module = sys.modules[kind.__module__]
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    text = inspect.cleandoc(kind.__doc__ or "")
    summary, _, rest = text.partition("\nAttributes:\n")
    meanings = {}
    for name, meaning in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", rest, flags=re.MULTILINE):
        meanings[name] = _sentence(meaning)
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meanings[ast.unparse(before.target)] = _sentence(str(after.value.value))
    return "\n\n".join(_sentence(part) for part in summary.strip().split("\n\n")), meanings


def _sentence(text: str) -> str:
    return " ".join(text.split())


# Python API


def api_pages() -> dict[str, str]:
    """Return a page of the public names, and one for every package with all of its modules."""
    pages = {"reference/api/index.md": _public_page()}
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        if folder.name not in UNDOCUMENTED:
            pages[f"reference/api/{folder.name}.md"] = _package_page(folder)
    return pages


def _public_page() -> str:
    import slime_vlm

    names = [name for name in slime_vlm.__all__ if not name.startswith("__")]
    functions = [name for name in names if name[0].islower()]
    errors = [name for name in names if name.endswith("Error")]
    classes = [name for name in names if name not in functions and name not in errors]
    parts = [
        "# Python API",
        "These names are the public interface: `import slime_vlm` and use them as `slime_vlm.NAME`."
        " Everything else may change between versions. The pages of the packages document it for contributors.",
    ]
    for title, group in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        if group:
            parts.append(f"## {title}")
            parts += [f"::: slime_vlm.{name}\n    options:\n      heading_level: 3" for name in group]
    return "\n\n".join(parts) + "\n"


def _package_page(folder: Path) -> str:
    parts = [f"# slime_vlm.{folder.name}", f"::: slime_vlm.{folder.name}\n    options: {{members: false}}"]
    for path in sorted(folder.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        # A shipped checkpoint holds the stub that transformers loads. It is no module of the package.
        in_package = (path.parent / "__init__.py").is_file()
        if not in_package or (path.parent == folder and path.name == "__init__.py"):
            continue
        if not any(part.startswith("_") for part in module.split(".")):
            parts.append(f"::: {module}" + ("\n    options: {members: false}" if path.name == "__init__.py" else ""))
    return "\n\n".join(parts) + "\n"


# Tables


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in line) + " |" for line in lines
    )
