"""Numbers in texts that others wrote."""

import pytest

from scalarizr.apache.configuration import listen_ports_of
from scalarizr.host.numerals import numeral
from scalarizr.nginx.main_config import listening_port
from scalarizr.nginx.syntax import Directive

NONE = ["", "²", "٣", "-1", "+1", "1_000", " 1", "1.0", "9" * 5000]


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("8080", 8080), ("007", 7)])
def test_ascii_digits_are_a_number(text: str, number: int) -> None:
    assert numeral(text) == number


@pytest.mark.parametrize("text", NONE, ids=lambda text: ascii(text[:8]))
def test_anything_else_is_none(text: str) -> None:
    assert numeral(text) is None


@pytest.mark.parametrize(
    "text", [text for text in NONE if text and not text.startswith(" ")], ids=lambda text: ascii(text[:8])
)
def test_a_port_that_is_none_in_a_configuration_is_left_to_the_server_s_own_check(text: str) -> None:
    assert listening_port(Directive(["listen", text], 0)) == 80
    assert listen_ports_of(f"Listen {text}\n") == set()
