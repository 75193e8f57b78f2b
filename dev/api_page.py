"""Writes docs/api.md from the OpenAPI document: `python -m dev.api_page`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from chalicelib.openapi.document import document

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"

Json = dict[str, Any]

_HEAD = """\
# The API

`make docs` writes this page from the OpenAPI document, which the API serves at `GET /api/openapi.json`.
An answer has all fields of its shape that are not marked as optional, and may have others."""


def render() -> str:
    """The page."""
    described = msgspec.to_builtins(document())
    parts = [_HEAD, described["info"]["description"], "## Routes"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    parts.append("## Shapes")
    for name, schema in described["components"]["schemas"].items():
        parts += _shape(name, schema)
    return "\n\n".join(parts) + "\n"


def _operation(title: str, operation: Json) -> Iterator[str]:
    yield f"### `{title}`"
    yield f"{operation['summary']}."
    if operation["parameters"]:
        rows = [
            (f"`{one['name']}`", f"{one['in']}{_optional(one['required'])}", one["description"])
            for one in operation["parameters"]
        ]
        yield _table(("Parameter", "In", "Meaning"), rows)
    if "requestBody" in operation:
        yield f"Body: {_content(operation['requestBody'])}"
    rows = [
        (status, _content(answer), answer["description"])
        for status, answer in operation["responses"].items()
    ]
    yield _table(("Status", "Body", "Meaning"), rows)


def _content(holder: Json) -> str:
    (schema,) = [content["schema"] for content in holder.get("content", {}).values()] or [None]
    return _type(schema) if schema else "none"


def _shape(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}"
    if "description" in schema:
        yield schema["description"]
    if "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"])
    if "properties" in schema:
        rows = [
            (f"`{field}`", _type(of) + _optional(field in schema["required"]), _meaning(of))
            for field, of in schema["properties"].items()
        ]
        yield _table(("Field", "Type", "Meaning"), rows)
    for example in schema.get("examples", []):
        yield f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```"


def _optional(required: bool) -> str:
    return "" if required else ", optional"


def _type(schema: Json) -> str:
    if ids := schema.get("properties", {}).get("id", {}).get("enum"):
        return f"error {', '.join(f'`{one}`' for one in ids)}"
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    kinds = [kind] if isinstance(kind, str) else kind
    names = [f"array of {_type(schema['items'])}" if one == "array" else one for one in kinds]
    return " or ".join(names)


_LIMITS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "minimum": "at least {}",
}


def _meaning(schema: Json) -> str:
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    sentence = f"{', '.join(limits).capitalize()}." if limits else ""
    return " ".join(filter(None, (schema.get("description"), sentence)))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
