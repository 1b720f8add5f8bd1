"""Managed files as sequences of blocks."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.errors import OutsideFailure
from scalarizr.nginx.document import Block, Document, KnownDocuments, Origin, make_block
from scalarizr.nginx.syntax import parse

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
COMMENT = st.sampled_from(
    ["", "\n", "# a note\n", "# with { marks }\n", "   \n# }\n\n", "# proxy a.example.com\n", "\r\n"]
)
LABEL = st.sampled_from(["", "a.example.com", "b_1__2", "9f86d081"])
INNER = st.sampled_from(
    [
        "    listen 80;\n",
        "    server 10.0.0.1:80 weight=2;\n",
        "    location / {\n        return 200 'a } b';\n    }\n",
        '    add_header X "\n}\n";\n',
        "    # a } in a comment\n",
        "    # an { in a comment\n",
        "\tset $a ${b}c;\r\n",
        "    listen 81; }\nserver {\n",
        "    location /a {\n        if ($b) {\n            return 204;\n        }\n    }\n",
    ]
)
CLOSING = st.sampled_from(["}\n", "}\r\n", "} # behind\n", "  }\n", "} ", "}"])
OTHER = st.sampled_from(["map $a $b {\n    default 1;\n}\n", "server_names_hash_max_size 1024;\n", "geo $c {}\n"])


@st.composite
def blocks(draw: st.DrawFn) -> str:
    kind, label = draw(st.sampled_from(["server", "upstream"])), draw(LABEL)
    head = f"{kind} {label} {{\n" if label else f"{kind} {{\n"
    return draw(COMMENT) + head + "".join(draw(st.lists(INNER, max_size=3))) + draw(CLOSING)


TEXTS = st.lists(blocks() | OTHER | COMMENT, max_size=5).map("".join)


@unhurried
@given(TEXTS)
def test_the_blocks_are_the_whole_text(text: str) -> None:
    document = Document("x", text)
    assert document.text == text
    expected = [(one.words[0], one.words[1] if len(one.words) > 1 else "") for one in parse(text)]
    assert [(block.kind, block.label) for block in document.blocks if block.kind] == expected
    for block in document.blocks:
        if block.kind:
            assert block.directive.words[0] == block.kind and block.start == block.directive.start


@unhurried
@given(TEXTS, st.integers(0, 9))
def test_a_block_goes_and_the_others_keep_every_byte(text: str, number: int) -> None:
    document = Document("x", text)
    servers = document.of("server")
    if not servers:
        return
    gone = servers[number % len(servers)]
    others = [block.text for block in document.blocks if block is not gone]
    document.remove([gone])
    assert all(one in document.text for one in others)
    assert len(parse(document.text)) == len(parse(text)) - 1


@unhurried
@given(TEXTS)
def test_the_same_blocks_again_change_nothing(text: str) -> None:
    new = make_block("# proxy n.example.com\nserver {\n    listen 80;\n}\n", "n.example.com")
    document = Document("x", text)
    document.replace([([], [new])])
    once = document.text
    again = Document("x", once)
    mine = [block for block in again.of("server") if block.owner == "n.example.com"]
    assert len(mine) == 1
    again.replace([(mine, [make_block(new.text, "n.example.com")])])
    assert again.text == once and once.startswith(text)


OURS = """\
# The reverse proxies.
map $a $b {
    default 1;
}
# proxy a.example.com
server {
    listen 80;
}
# somebody's note
# proxy b.example.com
server {
    listen 81;
}
server {
    listen 82;
}
"""


def test_our_comment_right_above_a_block_names_its_owner() -> None:
    document = Document("x", OURS)
    assert [block.owner for block in document.of("server")] == ["a.example.com", "b.example.com", None]
    assert document.owner_at(7) == "a.example.com" and document.owner_at(12) == "b.example.com"
    assert document.owner_at(15) is None and document.owner_at(99) is None


def test_a_comment_above_a_block_that_goes_stays_and_ours_goes_with_it() -> None:
    document = Document("x", OURS)
    document.remove(document.of("server")[1:2])
    assert "somebody's note" in document.text and "# proxy b.example.com" not in document.text
    assert "listen 81" not in document.text and "# proxy a.example.com" in document.text


def test_lines_are_mapped_to_what_the_caller_sent() -> None:
    origin = Origin("the proxy n.example.com", "templates[0].content", 3)
    document = Document("x", OURS)
    document.put(Block("server {\n    expires 1d;\n}\n", "server", "", "n.example.com", lambda: (None, origin, None)))
    first = OURS.count("\n") + 1
    assert document.origin(first + 1) == origin
    assert document.origin(first) is None and document.origin(2) is None and document.origin(99) is None


def test_a_file_that_somebody_broke_is_told_with_its_line() -> None:
    with pytest.raises(OutsideFailure, match=r"/etc/nginx/proxies\.include, line 17: .*Nothing was changed"):
        Document("/etc/nginx/proxies.include", OURS + "}\n" + "server {\n")
    with pytest.raises(OutsideFailure, match=r"line 18: the \{ of server is not closed"):
        Document("/etc/nginx/proxies.include", OURS + "\nserver {\n")


def test_a_file_that_is_still_as_it_was_keeps_its_blocks_without_what_was_said_of_its_lines() -> None:
    known = KnownDocuments()
    document = known.read("x", OURS)
    origin = Origin("the proxy n.example.com", "port")
    document.put(Block("server {\n}\n", "server", "", "n.example.com", (origin, None)))
    known.keep(document, document.text)
    again = known.read("x", document.text)
    assert again.text == document.text and again.blocks[-1] is document.blocks[-1]
    assert again.origin(document.text.count("\n") - 1) is None
    again.remove(again.of("server"))
    assert known.read("x", document.text).text == document.text, "edits of a document are its own"
    edited = document.text.replace("listen 81", "listen 82")
    assert known.read("x", edited).text == edited
    assert KnownDocuments(most=10).read("x", OURS).text == OURS
