"""Reading a docstring with Sphinx fields: its sentence, its text, what it says of each parameter and of the result."""

import re

import msgspec

_FIELD = re.compile(r":(param|return|returns|raises)(?:\s+([\w*]+))?:\s*")


class Words(msgspec.Struct, frozen=True):
    """What a docstring says.

    :param summary: its first sentence or paragraph, on one line.
    :param description: all before the fields.
    :param parameters: by their Python names.
    :param result: of the returned value.
    :param errors: by the names of the exceptions.
    """

    summary: str
    description: str
    parameters: dict[str, str]
    result: str
    errors: dict[str, str]


def read_docstring(text: str) -> Words:
    """Take a dedented docstring apart; literals lose their markup."""
    body: list[str] = []
    fields: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match:
            fields.append((match[1], match[2] or "", [line[match.end() :]]))
        elif fields:
            fields[-1][2].append(line.strip())
        else:
            body.append(line)
    description = "\n".join(body).strip()
    parameters, errors, result = {}, {}, ""
    for kind, name, lines in fields:
        words = _plain(" ".join(line for line in lines if line).strip())
        if kind == "param":
            parameters[name] = words
        elif kind == "raises":
            errors[name] = words
        else:
            result = words
    summary = _plain(" ".join(description.split("\n\n")[0].split()))
    return Words(summary, _plain(description), parameters, result, errors)


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "`")
