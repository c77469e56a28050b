"""Writes docs/config.md from the schema: `python -m memgap.config.reference docs/config.md`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.config.load import schema
from memgap.store.atomic import write_text

HEAD = """# Configuration reference

Made from `src/memgap/config/schema.yaml` by `make docs`; a test checks that it is current. Unknown keys are errors.
`<name>` stands for a name that you choose. Where a description says that a list is an axis, a list of values
multiplies the sweep's points.

Files mean what is written in them. A key that is there twice is refused with both lines, and so is a number that YAML
reads otherwise than it looks (`0777`, `1_000`, `12:30`). Whole numbers may be written as `2.0` and `1e3`. Where a text
belongs, such as in `env`, a number has to be in quotes.

"""


def _resolve(node: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = schema()["$defs"][str(node["$ref"]).rsplit("/", 1)[1]]
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return dict(node)


def _kind(node: Mapping[str, Any]) -> str:
    node = _resolve(node)
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if "anyOf" in node:
        return ", or ".join(dict.fromkeys(_kind(branch) for branch in node["anyOf"]))
    kind = node.get("type", "any")
    if kind == "array":
        return f"list of {_kind(node['items'])}"
    if isinstance(kind, list):
        return " or ".join(kind)
    bounds = [
        f"{sign} {node[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))
        if key in node
    ]
    return f"{kind} {', '.join(bounds)}".strip()


def _rows(node: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, str, str, str]]:
    node = _resolve(node)
    children = list(node.get("properties", {}).items())
    rest = node.get("additionalProperties")
    if isinstance(rest, Mapping) and _resolve(rest).get("properties"):
        children.append(("<name>", rest))
    for branch in node.get("anyOf", ()):
        children.extend(_resolve(branch).get("properties", {}).items())
    for name, child in children:
        full = f"{path}.{name}" if path else name
        resolved = _resolve(child)
        default = f"`{canonical_json(resolved['default'])}`" if "default" in resolved else ""
        yield full, _kind(child), default, " ".join(str(resolved.get("description", "")).split())
        if full.endswith("experiments"):
            continue
        yield from _rows(child, full, depth + 1)


def reference_page() -> str:
    """Return the reference as Markdown."""
    lines = [HEAD]
    for name, node in schema()["properties"].items():
        resolved = _resolve(node)
        lines.append(f"## {name}\n\n{' '.join(str(resolved.get('description', '')).split())}\n")
        rows = list(_rows(node, name, 0))
        if not rows:
            default = f", default `{canonical_json(resolved['default'])}`" if "default" in resolved else ""
            lines.append(f"Type: {_kind(node)}{default}.\n")
            continue
        lines.append("| key | type | default | meaning |\n| --- | --- | --- | --- |")
        lines.extend(f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in rows)
        lines.append("")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Write the page to the path given."""
    write_text(Path(argv[0]), reference_page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
