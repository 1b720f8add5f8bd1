"""Finding methods: namespaces are imported when first asked for, their methods derived from what they declare."""

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, nearest
from scalarizr.rpc.call import MethodNotFound, NamespaceNotFound
from scalarizr.rpc.method import Declaration, declaration_of
from scalarizr.rpc.rights import FULL_RIGHTS, Rights, refusal
from scalarizr.rpc.types import Check, checker, words_of

REQUIRED: Any = inspect.Parameter.empty


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a method.

    :param name: its name on the wire.
    :param keyword: its name in Python.
    :param annotation: its type.
    :param default: its default, or `REQUIRED`.
    :param check: turns what came into what the method wants.
    """

    name: str
    keyword: str
    annotation: Any
    default: Any
    check: Check


class Method(msgspec.Struct, frozen=True):
    """One method of the API, bound to its namespace's object.

    :param name: `namespace.method`.
    :param function: what runs.
    :param declaration: what its decorator says.
    :param parameters: in the order of the signature.
    :param result: the annotation of what it returns.
    :param documentation: its docstring, dedented.
    """

    name: str
    function: Callable[..., Any]
    declaration: Declaration
    parameters: tuple[Parameter, ...]
    result: Any
    documentation: str

    @property
    def takes_async(self) -> bool:
        return self.declaration.kind == "operation"

    @property
    def asynchronous_unless_told(self) -> bool:
        """Whether a call that says nothing of `async` gets the operation's id at once: its default in the signature."""
        return any(parameter.keyword == "async_" and parameter.default is True for parameter in self.parameters)

    def arguments(self, params: dict[str, Any] | list[Any]) -> dict[str, Any]:
        """Check what came against the signature.

        :return: keyword arguments for `function`; what was not given is not in it.
        :raises InvalidParameter: naming the first parameter that is wrong.
        """
        if isinstance(params, list):
            params = self._by_position(params)
        arguments = {}
        known = 0
        for parameter in self.parameters:
            if parameter.name in params:
                known += 1
                arguments[parameter.keyword] = parameter.check(params[parameter.name], parameter.name)
            elif parameter.default is REQUIRED:
                raise InvalidParameter(parameter.name, "nothing", words_of(parameter.annotation))
        if known != len(params):
            names = [parameter.name for parameter in self.parameters]
            unknown = next(name for name in params if name not in names)
            raise InvalidParameter(unknown[:60], "a parameter that this method does not have", _nearest(unknown, names))
        return arguments

    def _by_position(self, values: list[Any]) -> dict[str, Any]:
        if self.takes_async and values:
            raise InvalidParameter("params", "an array", "an object: this method takes its parameters by name")
        if len(values) > len(self.parameters):
            raise InvalidParameter("params", f"{len(values)} values", f"{len(self.parameters)} at most")
        return {parameter.name: value for parameter, value in zip(self.parameters, values, strict=False)}


def _nearest(unknown: str, names: list[str]) -> str:
    close = nearest(unknown, names)
    if close:
        return f"{close}, perhaps"
    return "one of " + ", ".join(names) if names else "none"


class Registry:
    """All namespaces, by name.

    :param namespaces: name → `package.module:Class`; a class is imported and built when first asked for.
    :param aliases: other names of them.
    :param build: builds a namespace's object from its class.
    """

    def __init__(
        self, namespaces: Mapping[str, str], aliases: Mapping[str, str], build: Callable[[type], object]
    ) -> None:
        self._paths = dict(namespaces)
        self._aliases = dict(aliases)
        self._build = build
        self._built: dict[str, dict[str, Method]] = {}

    @property
    def names(self) -> list[str]:
        """The namespaces, without aliases."""
        return list(self._paths)

    @property
    def aliases(self) -> dict[str, str]:
        """Other names: alias → namespace."""
        return dict(self._aliases)

    def methods(self, namespace: str) -> dict[str, Method]:
        """Give the methods of a namespace, by their short names.

        :raises NamespaceNotFound: there is none of that name.
        """
        name = self._aliases.get(namespace, namespace)
        methods = self._built.get(name)
        if methods is None:
            path = self._paths.get(name)
            if path is None:
                raise NamespaceNotFound(namespace[:100], self.names)
            methods = self._built[name] = self._load(name, path)
        return methods

    def find(self, name: str, *, within: str = "", rights: Rights = FULL_RIGHTS) -> Method:
        """Give one method.

        Of what the rights do not allow nothing is told, neither which methods nor which namespaces there are, and no
        namespace is built that they cannot reach.

        :param name: `namespace.method`.
        :param within: the namespace where the path named it: then errors speak of the short name.
        :param rights: the caller's.
        :raises NamespaceNotFound: there is no such namespace.
        :raises MethodNotFound: it has no such method.
        :raises PermissionRefused: the rights do not allow it.
        """
        namespace, short = within, name[len(within) + 1 :]
        if not within:
            namespace, dot, short = name.partition(".")
            if not dot:
                raise MethodNotFound(name[:100], self._nearest_anywhere(name, rights))
        if not rights.unlimited:
            canonical = self._aliases.get(namespace, namespace)
            if not rights.reach(canonical):
                raise refusal(f"{canonical}.{short}")
        methods = self.methods(namespace)
        found = methods.get(short)
        if found is None:
            allowed = [one for one, method in methods.items() if rights.allow(method)]
            raise MethodNotFound(short[:100], nearest(short, allowed, 0.5))
        if not (rights.unlimited or rights.allow(found)):
            raise refusal(found.name)
        return found

    def known(self, name: str) -> Method | None:
        """Give a method of a namespace that is built already; None where there is none of that name."""
        namespace, _, short = name.partition(".")
        return self._built.get(self._aliases.get(namespace, namespace), {}).get(short)

    def allowed(self, rights: Rights) -> list[Method]:
        """Give all methods that the rights allow, building the namespaces that they reach."""
        return [
            method
            for namespace in self._paths
            if rights.reach(namespace)
            for method in self.methods(namespace).values()
            if rights.allow(method)
        ]

    def _nearest_anywhere(self, name: str, rights: Rights) -> str | None:
        known = [method.name for method in self.allowed(rights)]
        same = [full for full in known if full.partition(".")[2] == name]
        return same[0] if same else nearest(name, known)

    def _load(self, namespace: str, path: str) -> dict[str, Method]:
        module, _, class_name = path.partition(":")
        built = self._build(getattr(importlib.import_module(module), class_name))
        methods = {}
        for name in dir(type(built)):
            declaration = declaration_of(getattr(type(built), name, None))
            if declaration is not None:
                methods[name] = describe(f"{namespace}.{name}", getattr(built, name), declaration)
        return methods


def describe(name: str, function: Callable[..., Any], declaration: Declaration) -> Method:
    """Derive a method from its function: parameters and result from the annotations, words from the docstring."""
    hints = typing.get_type_hints(function)
    parameters = []
    for keyword, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        annotation = hints[keyword]
        parameters.append(Parameter(keyword.rstrip("_"), keyword, annotation, parameter.default, checker(annotation)))
    if (declaration.kind == "operation") != any(parameter.name == "async" for parameter in parameters):
        raise TypeError(f"{name}: exactly the operations have a parameter async_")
    return Method(
        name,
        function,
        declaration,
        tuple(parameters),
        hints.get("return", Any),
        inspect.getdoc(function) or "",
    )
