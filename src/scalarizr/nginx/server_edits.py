"""Servers that join or leave upstreams: an edit, the upstreams that it is about, and what becomes of those."""

import msgspec

from scalarizr.errors import NotFound
from scalarizr.nginx.document import Block
from scalarizr.nginx.parameters import Server
from scalarizr.nginx.plan import Plan
from scalarizr.nginx.upstreams import merged, options_for, roles_of, with_server, without_server


class Addition(msgspec.Struct, frozen=True, kw_only=True, tag="add"):
    """A server that joins the upstreams of a name, or of a role."""

    server: Server
    backend: str | None = None
    role: str | None = None


class Removal(msgspec.Struct, frozen=True, kw_only=True, tag="remove"):
    """A server that leaves the upstreams of a name, of a role, or all."""

    server: Server
    backend: str | None = None
    role: str | None = None


Edit = Addition | Removal


def carry_out(plan: Plan, edit: Edit) -> None:
    """Make an edit in every upstream that it is about.

    :raises NotFound: there is no upstream of its name.
    """
    for block in upstreams_for(plan, edit):
        edited = block
        if isinstance(edit, Removal):
            edited = without_server(block, edit.server)
        elif edit.role is not None:
            for options in options_for(block, edit.role):
                edited = with_server(edited, merged(edit.server, options))
        else:
            edited = with_server(block, edit.server)
        if edited is not block:
            plan.upstreams.swap(block, edited)


def upstreams_for(plan: Plan, edit: Edit) -> list[Block]:
    """Give the upstreams that an edit is about.

    :raises NotFound: there is none of its name.
    """
    blocks = plan.upstreams.of("upstream")
    if edit.role is not None:
        return [block for block in blocks if edit.role in roles_of(block)]
    if edit.backend is None:
        return blocks
    found = [block for block in blocks if block.label == edit.backend or block.label.startswith(f"{edit.backend}_")]
    if not found:
        named = [block for block in blocks if block.owner == edit.backend.lower()] or blocks
        known = ", ".join(block.label for block in named[:5]) + (", …" if len(named) > 5 else "")
        present = "There are" if named is blocks else "Those of the proxy are"
        raise NotFound(
            f"There is no upstream {edit.backend[:100]}, nor one that begins with it and an underscore. "
            + (f"{present} {known}. " if blocks else "There is none at all. ")
            + "Nothing was changed.",
            {"backend": edit.backend[:100]},
        )
    return found
