"""What a method's description says of the parameters that belong to no method."""

from typing import Any

from scalarizr.api.nginx import NginxAPI
from scalarizr.api.system import SystemAPI
from scalarizr.rpc import dispatch
from scalarizr.rpc.discover import describe_method
from scalarizr.rpc.method import declaration_of
from scalarizr.rpc.registry import describe


def parameters(kind: type, name: str) -> dict[str, dict[str, Any]]:
    function = vars(kind)[name]
    declaration = declaration_of(function)
    assert declaration is not None
    described = describe_method(describe(f"x.{name}", function.__get__(object()), declaration))
    return {one["name"]: one for one in described["params"]}


def test_what_can_be_shown_beforehand_can_be_taken_back_too() -> None:
    of_a_change, of_a_query = parameters(NginxAPI, "make_proxy"), parameters(SystemAPI, "load_average")
    assert {"_dry_run", "_confirm_within", "_platform_access_data"} <= of_a_change.keys()
    assert of_a_query.keys() == {"_platform_access_data"}


def test_the_bounds_of_a_confirmation_are_those_that_are_checked() -> None:
    schema = parameters(NginxAPI, "make_proxy")["_confirm_within"]["schema"]
    assert (schema["minimum"], schema["maximum"]) == (dispatch._SHORTEST_WAIT, dispatch._LONGEST_WAIT)
