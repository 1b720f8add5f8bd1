"""The `rpc` namespace: what can be called."""

from typing import Any, ClassVar

from scalarizr.rpc.method import query
from scalarizr.rpc.registry import Registry
from scalarizr.rpc.rights import present_rights


class DiscoveryAPI:
    """Describes the API, from the code's own annotations and docstrings.

    :param registry: all methods.
    """

    describes_the_registry: ClassVar[bool] = True

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @query
    def discover(self) -> dict[str, Any]:
        """Describe every method that the caller may call.

        :return: an OpenRPC 1.3 document: each method with its parameters, their types, defaults and meanings, and its
            result.
        """
        from scalarizr.rpc.discover import openrpc

        return openrpc(self._registry, present_rights())

    @query
    def describe(self, name: str) -> dict[str, Any]:
        """Describe one method.

        :param name: `namespace.method`; aliases of namespaces are known.
        :return: its entry of the OpenRPC document.
        :raises MethodNotFound: there is no such method; names the nearest.
        :raises PermissionRefused: the caller may not call it.
        """
        from scalarizr.rpc.discover import describe_method

        return describe_method(self._registry.find(name, rights=present_rights()))
