"""`scalarizr methods`: what can be called, as the agent itself describes it."""

import json
from typing import Any

import click

from scalarizr.cli.output import for_people, print_json
from scalarizr.cli.target import Target, connected, target_options


@click.command()
@click.argument("name", metavar="[NAMESPACE[.METHOD]]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def methods(name: str | None, as_json: bool, target: Target) -> None:
    """Show what can be called: all, those of one namespace, or one method in full."""
    with connected(target) as client:
        if name and "." in name:
            described = client.call("rpc.describe", name=name)
            if for_people(as_json):
                click.echo(described_in_full(described))
            else:
                print_json(described)
            return
        document = client.call("rpc.discover")
    namespace = document["x-aliases"].get(name, name)
    if namespace and namespace not in document["x-namespaces"]:
        raise click.ClickException(
            f"The agent has no namespace {name}; there are {', '.join(document['x-namespaces'])}."
        )
    found = [one for one in document["methods"] if not namespace or one["name"].partition(".")[0] == namespace]
    if not for_people(as_json):
        print_json(found)
        return
    width = max((len(one["name"]) for one in found), default=0)
    for one in found:
        click.echo(f"{one['name']:{width}}  {one['summary']}")
    if not found:
        click.echo(f"{name} has no methods yet.")


def described_in_full(method: dict[str, Any]) -> str:
    """Write one method down: its words, parameters, result, and an example."""
    parts = [click.style(method["name"], bold=True), "", method["description"], ""]
    own = [parameter for parameter in method["params"] if not parameter["name"].startswith("_")]
    shown = [parameter for parameter in method["params"] if parameter["name"] != "_platform_access_data"]
    if shown:
        parts.append("Parameters:")
        for parameter in shown:
            schema = parameter["schema"]
            default = "" if parameter["required"] else f", default {json.dumps(schema.get('default'))}"
            if parameter["name"].startswith("_"):
                default = ", optional"
            parts.append(f"  {parameter['name']} ({type_in_words(schema)}{default})")
            if parameter["description"]:
                parts.append(f"      {parameter['description']}")
        parts.append("")
    parts.append(f"Result: {type_in_words(method['result']['schema'])}")
    if method["result"]["description"]:
        parts.append(f"  {method['result']['description']}")
    if method.get("x-errors"):
        parts += ["", "Errors:"]
        parts += [f"  {name}: {words}" for name, words in method["x-errors"].items()]
    example = " ".join(f"{parameter['name']}=…" for parameter in own if parameter["required"])
    parts += ["", f"  scalarizr call {method['name']} {example}".rstrip()]
    return "\n".join(parts)


def type_in_words(schema: dict[str, Any]) -> str:
    """Name a JSON schema's type shortly."""
    if "enum" in schema:
        return " | ".join(json.dumps(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(type_in_words(choice) for choice in schema["anyOf"])
    kind = schema.get("type", "any")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {type_in_words(schema['items'])}"
    if kind == "object" and schema.get("properties"):
        return "object {" + ", ".join(schema["properties"]) + "}"
    if schema.get("format") == "password":
        return "secret string"
    return str(kind)
