"""nginx's configuration language: read as nginx reads it, and edited without a byte lost elsewhere."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.nginx.syntax import BadSyntax, Directive, parse, quoted, unquoted, whole_lines

# The machine may be busy: what counts is what is found.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PLAIN = st.text("abcXYZ019_./:*$@%+,=~^&?!<>()|[]-", min_size=1, max_size=12)
GAP = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\t", "\n    ", " # a comment; with { marks } and \"quotes'\n", "\n#\n"]
)
WITH_VARIABLES = st.lists(PLAIN | st.sampled_from(["${host}", "${a_b}"]), min_size=1, max_size=3).map("".join)
NAME = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
WORD = st.tuples(WITH_VARIABLES, st.booleans()) | st.tuples(ANY_TEXT, st.just(False))
MANY = st.integers(0, 4)


@st.composite
def configurations(draw: st.DrawFn, depth: int = 0) -> tuple[str, list[object]]:
    """A text, and what stands in it: the words of each directive, and its children where it is a block."""
    text, expected = "", []
    for _ in range(draw(MANY)):
        words = [draw(NAME)]
        text += draw(GAP) + words[0]
        for word, bare in draw(st.lists(WORD, max_size=3)):
            words.append(word)
            text += draw(GAP) + (word if bare else quoted(word))
        if depth < 2 and draw(st.booleans()):
            inner, children = draw(configurations(depth + 1))
            text += f"{draw(GAP)}{{{inner}{draw(GAP)}}}"
            expected.append((words, children))
        else:
            text += draw(st.sampled_from([";", " ;", "\n;"]))
            expected.append((words, None))
    return text + draw(GAP), expected


def outline(directives: list[Directive]) -> list[object]:
    return [(one.words, outline(one.children) if one.is_block else None) for one in directives]


def everything(directives: list[Directive]) -> list[Directive]:
    return [inner for one in directives for inner in (one, *everything(one.children))]


@unhurried
@given(configurations())
def test_what_was_written_is_read(configuration: tuple[str, list[object]]) -> None:
    text, expected = configuration
    assert outline(parse(text)) == expected


@unhurried
@given(configurations(), st.randoms())
def test_a_directive_is_cut_out_and_put_back_without_touching_a_byte_elsewhere(
    configuration: tuple[str, list[object]], random: object
) -> None:
    text, _expected = configuration
    for one in everything(parse(text)):
        before, own, behind = text[: one.start], text[one.start : one.end], text[one.end :]
        assert before + own + behind == text
        (alone,) = parse(own)
        assert alone.words == one.words and alone.is_block == one.is_block
        # What is left is a configuration of everything but that.
        left = outline(parse(before + behind))
        assert len(everything(parse(before + behind))) == len(everything(parse(text))) - len(everything([one]))
        assert left != outline(parse(text))


@unhurried
@given(configurations())
def test_whole_lines_hold_the_directive_and_at_most_a_comment_beside_it(
    configuration: tuple[str, list[object]],
) -> None:
    text, _expected = configuration
    for one in everything(parse(text)):
        start, end = whole_lines(text, one)
        assert start <= one.start and one.end <= end
        assert not text[start : one.start].strip()
        rest = text[one.end : end].strip()
        assert not rest or rest.startswith("#")


@unhurried
@given(ANY_TEXT)
def test_a_quoted_word_is_that_word_again_and_no_more(word: str) -> None:
    written = quoted(word)
    assert [one.words for one in parse(f"name {written} behind;")] == [["name", word, "behind"]]
    if written.startswith('"'):
        assert unquoted(written) == word


LUA = st.recursive(
    st.sampled_from(
        [
            "local a = 1 ",
            'ngx.say("} \\" {") ',
            "f('{ \\' }') ",
            "-- a comment's } \" ]] \n",
            "--[[ } a long one ' \n { ]] ",
            "--[==[ } ]] ]==] ",
            "x = [[ it's } { \n ]] ",
            "y = [=[ ]] } ]=] ",
            "t[a[1]] = 5 - -3 ",
            "s = #t .. ';' ",
        ]
    ),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "{ " + "".join(parts) + "} "),
    max_leaves=12,
)


@unhurried
@given(configurations(), st.lists(st.tuples(NAME, st.lists(LUA, max_size=3)), max_size=3), configurations())
def test_blocks_of_lua_are_read_over(
    above: tuple[str, list[object]], blocks: list[tuple[str, list[str]]], below: tuple[str, list[object]]
) -> None:
    written = [f"{name}_by_lua_block $x {{\n{''.join(inner)}\n}}\n" for name, inner in blocks]
    text = f"http {{ {above[0]}\n{''.join(written)}{below[0]} }}\nworker_processes 1;"
    found = parse(text)
    lua = [([f"{name}_by_lua_block", "$x"], []) for name, _inner in blocks]
    assert outline(found) == [(["http"], [*above[1], *lua, *below[1]]), (["worker_processes", "1"], None)]
    own = [one for one in found[0].children if one.words[1:] == ["$x"] and one.name.endswith("_by_lua_block")]
    assert [text[one.start : one.end] + "\n" for one in own] == written


@unhurried
@given(st.text("{}\"'\\-[=] \nab", max_size=40))
def test_any_lua_is_read_or_refused_with_its_line(inner: str) -> None:
    text = f"a 1;\ncontent_by_lua_block {{{inner}}}\nb 2;"
    try:
        directives = parse(text)
    except BadSyntax as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert directives[0].words == ["a", "1"] and directives[1].name == "content_by_lua_block"


@pytest.mark.parametrize("piece", ["[[ ", "[=", '"\\', "' ", "--[[ ", "--", "{ "])
def test_reading_lua_takes_no_longer_than_its_length(piece: str) -> None:
    with pytest.raises(BadSyntax):
        parse("content_by_lua_block {" + piece * 100_000)


@unhurried
@given(st.text("{};\"'#\\$ \nab", max_size=25))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        directives = parse(text)
    except BadSyntax as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert all(text[one.end - 1] in ";}" for one in everything(directives))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("server {\n    listen 80;\n", 1, "the { of server is not closed"),
        ("a 1;\n}\n", 2, "a } without its {"),
        ("server {\n    listen 80\n}\n", 2, "listen is not ended by ;"),
        ("a 1;\nb", 2, "b is not ended by ;"),
        ('a 1;\nb "open;\n', 2, "a quote is not closed"),
        ('a "b"c;', 1, "right behind a closing quote"),
        ("\n\n;", 3, "a ; without a directive"),
        ("{ }", 1, "a { without a directive"),
        ("a 1;\nx_by_lua_block { f({ }\n", 2, "the { of a Lua block is not closed"),
        ("x_by_lua_block {\n f('}) }\n", 2, "a quote of a Lua block is not closed"),
        ("x_by_lua_block {\n\n a = [=[ }", 3, "a long bracket of a Lua block is not closed"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(BadSyntax) as caught:
        parse(text)
    assert caught.value.line == line and words in str(caught.value)


def test_words_are_read_as_nginx_reads_them() -> None:
    text = 'log_format main \'$remote_addr - "x"\' "a\\"b\\\\c\\td" plain\\ word ${host}x a#b "";'
    (one,) = parse(text)
    assert one.words == [
        "log_format",
        "main",
        '$remote_addr - "x"',
        'a"b\\c\td',
        "plain\\ word",
        "${host}x",
        "a#b",
        "",
    ]


def test_blocks_find_their_children() -> None:
    (server,) = parse("server { listen 80; # one\n listen 81; location / { return 204; } }")
    assert [one.words[1] for one in server.all("listen")] == ["80", "81"]
    location = server.child("location")
    assert location is not None and location.child("return") is not None and server.child("root") is None
