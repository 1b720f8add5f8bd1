"""Checking values from outside: the tolerances of the field, and nothing else guessed."""

from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalarizr.errors import InvalidParameter
from scalarizr.rpc.types import checker
from scalarizr.secret import Secret

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def refused(annotation: Any, value: Any) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        checker(annotation)(value, "p")
    return caught.value


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (bool, True, True),
        (bool, 0, False),
        (bool, 1, True),
        (bool, "0", False),
        (bool, "1", True),
        (bool, "true", True),
        (bool, "false", False),
        (int, 8010, 8010),
        (int, "8010", 8010),
        (int, "-5", -5),
        (int, 10**30, 10**30),
        (float, 1, 1.0),
        (float, 1.5, 1.5),
        (str, "", ""),
        (list[int], ["1", 2], [1, 2]),
        (list[str], {"1": "b", "0": "a"}, ["a", "b"]),
        (list[str], {}, []),
        (list[list[int]], {"0": {"0": "7"}}, [[7]]),
        (tuple[str, int], ["a.example", "443"], ("a.example", 443)),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (int | None, None, None),
        (int | str, "5", "5"),
        (str | None, "x", "x"),
        (list[str] | None, {"0": "x"}, ["x"]),
        (Literal["read", "execute"], "read", "read"),
        (Any, {"x": [1]}, {"x": [1]}),
    ],
)
def test_what_is_accepted(annotation: Any, value: Any, expected: Any) -> None:
    found = checker(annotation)(value, "p")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bool, 2),
        (bool, "yes"),
        (bool, "True"),
        (bool, ""),
        (bool, None),
        (bool, 1.0),
        (int, True),
        (int, 1.0),
        (int, "1.0"),
        (int, " 1"),
        (int, "+1"),
        (int, "1_0"),
        (int, "٣"),
        (int, ""),
        (int, "0x10"),
        (int, "9" * 5000),
        (float, "1.5"),
        (float, True),
        (float, 10**400),
        (str, 5),
        (str, None),
        (list[str], "a"),
        (list[str], {"0": "a", "2": "b"}),
        (list[str], {"a": "b"}),
        (list[str], {"00": "b"}),
        (tuple[str, int], ["a"]),
        (dict[str, int], []),
        (dict[str, int], {"a": "b"}),
        (Literal["read", "execute"], "write"),
        (Secret, 5),
    ],
)
def test_what_is_refused(annotation: Any, value: Any) -> None:
    facts = refused(annotation, value).facts
    assert facts["parameter"] in ("p", "p.a") and facts["expected"]


@given(st.sampled_from([bool, int, float, str, list[int], dict[str, str], int | None, tuple[str, int]]), JSON)
def test_a_check_gives_its_type_or_refuses(annotation: Any, value: Any) -> None:
    try:
        found = checker(annotation)(value, "p")
    except InvalidParameter as error:
        assert len(str(error)) < 1000
    else:
        assert checker(annotation)(list(found) if isinstance(found, tuple) else found, "p") == found


def test_a_mistake_deep_inside_is_named_with_its_path() -> None:
    assert refused(list[dict[str, int]], [{"a": 1}, {"b": "x"}]).facts["parameter"] == "p[1].b"
    assert refused(list[int] | None, [1, "x"]).facts["parameter"] == "p[1]"


def test_a_secret_is_masked_from_the_start_and_never_shown() -> None:
    assert str(checker(Secret)("hunter2", "p")) == "******"
    assert refused(Secret, ["hunter2"]).facts["got"] is None
    assert refused(Secret | None, ["hunter2"]).facts["got"] is None


class Variable(TypedDict):
    name: str
    value: Secret
    private: NotRequired[bool]


def test_an_object_with_known_keys_says_itself_whether_it_holds_a_secret() -> None:
    check = checker(list[Variable])
    assert check([{"name": "A", "value": "seen"}], "v") == [{"name": "A", "value": "seen"}]
    assert check({"0": {"name": "A", "value": "seen", "private": "0"}}, "v")[0]["value"] == "seen"
    for private in (True, 1, "1", "true"):
        (one,) = check([{"name": "A", "value": "planted", "private": private}], "v")
        assert one["value"] == Secret("planted") and one["private"] is True


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([{"value": "planted", "private": True}], "v[0].name"),
        ([{"name": "A", "value": "planted", "secret": True}], "v[0].secret"),
        ([{"name": "A", "value": "planted", "private": "perhaps"}], "v[0].private"),
        ([{"name": "A", "value": ["planted"]}], "v[0].value"),
        (["planted"], "v[0]"),
        ({"A": "planted"}, "v"),
        ("planted", "v"),
    ],
)
def test_an_object_that_may_hold_a_secret_is_refused_without_showing_it(value: Any, named: str) -> None:
    for annotation in (list[Variable], list[Variable] | None):
        with pytest.raises(InvalidParameter) as caught:
            checker(annotation)(value, "v")
        assert caught.value.facts["parameter"] == named and "planted" not in str(caught.value)


def test_what_came_is_shown_short() -> None:
    assert len(str(refused(int, "x" * 10_000).facts["got"])) <= 60
