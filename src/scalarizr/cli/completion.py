"""`scalarizr completion`: the script that teaches a shell our words, and the words themselves."""

import contextlib
from pathlib import Path

import click

_SCRIPTS = {
    "bash": """_scalarizr() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(scalarizr completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" \\
        -- "${COMP_WORDS[COMP_CWORD]}"))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _scalarizr scalarizr
""",
    "zsh": """#compdef scalarizr
_scalarizr() {
    local -a found
    found=("${(@f)$(scalarizr completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -S '' -- $found
}
compdef _scalarizr scalarizr
""",
    "fish": """function __scalarizr
    scalarizr completion words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null
end
complete -c scalarizr -f -a '(__scalarizr)'
""",
}
_COMMANDS_WITHIN = {
    "operations": ["list", "show", "cancel", "follow"],
    "changes": ["list", "show", "revert", "confirm"],
    "key": ["list", "add", "rotate", "revoke"],
    "maintenance": ["on", "off", "status"],
}
_PATIENCE = 1.0


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "words"]))
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def completion(context: click.Context, shell: str, words: tuple[str, ...]) -> None:
    """Print the completion script of a shell: `source <(scalarizr completion bash)`."""
    if shell == "words":
        for word in suggestions(list(words) or [""], context):
            click.echo(word)
    else:
        click.echo(_SCRIPTS[shell], nl=False)


def suggestions(words: list[str], context: click.Context) -> list[str]:
    """Give what the last word may become.

    :param words: of the line so far, without the program's name; the last one is being typed.
    """
    from scalarizr.cli.main import cli

    last = words[-1]
    if len(words) == 1:
        found = cli.list_commands(context)
    elif last.startswith("-"):
        command = cli.get_command(context, words[0])
        found = [option for parameter in (command.params if command else []) for option in parameter.opts]
    elif words[0] in _COMMANDS_WITHIN and len(words) == 2:
        found = _COMMANDS_WITHIN[words[0]]
    elif words[0] == "completion":
        found = list(_SCRIPTS)
    elif words[0] in ("call", "methods"):
        found = _of_the_agent(words, context)
    else:
        found = []
    return [word for word in found if word.startswith(last)]


def _of_the_agent(words: list[str], context: click.Context) -> list[str]:
    """Ask the local agent for its methods, or for the parameters of one; nothing where it does not answer at once."""
    from scalarizr.cli.target import local_url
    from scalarizr.client import Client, ClientError
    from scalarizr.settings.load import BadSettings, default_etc, load_settings

    with contextlib.suppress(ClientError, BadSettings, OSError, ValueError):
        settings = load_settings(Path(context.obj or default_etc()))
        with Client(
            local_url(settings), key_file=settings.paths.key, timeout=_PATIENCE, connect_timeout=_PATIENCE
        ) as client:
            if len(words) == 2:
                document = client.call("rpc.discover")
                names = [method["name"] for method in document["methods"]]
                return [*document["x-namespaces"], *names] if words[0] == "methods" else names
            described = client.call("rpc.describe", name=words[1])
            given = {word.partition("=")[0] for word in words[2:-1]}
            return [f"{one['name']}=" for one in described["params"] if one["name"] not in given]
    return []
