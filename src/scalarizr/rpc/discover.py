"""Describing the API as an OpenRPC 1.3 document, from what the methods declare."""

from typing import Any

import msgspec

from scalarizr import __version__
from scalarizr.rpc.docstring import read_docstring
from scalarizr.rpc.registry import REQUIRED, Method, Registry
from scalarizr.rpc.rights import Rights
from scalarizr.secret import Secret, masked

_META = {
    "_platform_access_data": (
        {"type": "object"},
        "Cloud credentials for this one request; never logged, never stored.",
    ),
    "_dry_run": ({"type": "boolean", "default": False}, "Show what would change, and change nothing."),
    "_confirm_within": (
        {"type": "number", "minimum": 5, "maximum": 3600},
        "Seconds after which the change is taken back unless `change.confirm` comes; the result is then "
        "`{result, change_id, confirm_by}`.",
    ),
}
# Known to methods that can show what they would change, and to no other.
_OF_CHANGES = ("_dry_run", "_confirm_within")


def openrpc(registry: Registry, rights: Rights) -> dict[str, Any]:
    """Describe every method that the rights allow, and no namespace that has none of them.

    Each method carries, beside the standard's members, `x-kind` (`query`, `command` or `operation`).
    """
    methods = registry.allowed(rights)
    there = {method.name.partition(".")[0] for method in methods}
    names = [name for name in registry.names if rights.unlimited or name in there]
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "scalarizr",
            "version": __version__,
            "description": (
                "The agent on every server of a fleet. A method `namespace.name` is called as `name` on the path "
                "`/namespace`, or under its whole name on `/`."
            ),
        },
        "methods": [describe_method(method) for method in methods],
        "x-namespaces": names,
        "x-aliases": {alias: name for alias, name in registry.aliases.items() if name in names},
    }


def describe_method(method: Method) -> dict[str, Any]:
    """Describe one method as the document does."""
    words = read_docstring(method.documentation)
    described: dict[str, Any] = {
        "name": method.name,
        "summary": words.summary,
        "description": words.description,
        "paramStructure": "by-name" if method.takes_async else "either",
        "params": [_parameter(parameter, words.parameters) for parameter in method.parameters],
        "result": {"name": "result", "description": words.result, "schema": _schema(method.result)},
        "x-kind": method.declaration.kind,
    }
    described["params"] += [
        {"name": name, "description": text, "required": False, "schema": schema}
        for name, (schema, text) in _META.items()
        if name not in _OF_CHANGES or method.declaration.dry_run
    ]
    if words.errors:
        described["x-errors"] = words.errors
    return described


def _parameter(parameter: Any, words: dict[str, str]) -> dict[str, Any]:
    schema = _schema(parameter.annotation)
    required = parameter.default is REQUIRED
    if not required:
        schema = {**schema, "default": masked(parameter.default)}
    return {
        "name": parameter.name,
        "description": words.get(parameter.keyword, ""),
        "required": required,
        "schema": schema,
    }


def _schema(annotation: Any) -> dict[str, Any]:
    schema = msgspec.json.schema(annotation, schema_hook=_secret_schema)
    definitions = schema.pop("$defs", None)
    return _inlined(schema, definitions) if definitions else schema


def _secret_schema(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password"}
    raise TypeError(f"no schema is known for {kind}")


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Put referenced schemas in the place of the references: each method's description stands alone."""
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return _inlined(definitions[reference.rpartition("/")[2]], definitions)
        return {name: _inlined(item, definitions) for name, item in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    return schema
