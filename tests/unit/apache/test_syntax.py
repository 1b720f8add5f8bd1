"""Apache's configuration language: read as Apache reads it, line by line."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.apache.syntax import BadSyntax, Directive, parse, quoted, split_words

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,11}", fullmatch=True).filter(lambda name: name.lower() != "if")
ANY_WORD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=15)
BREAK = st.sampled_from([" ", "  ", "\t", " \\\n", "\\\n    ", " \\\r\n  "])
BEFORE = st.sampled_from(
    [
        "",
        "\n",
        "    ",
        "\t",
        "# <VirtualHost *:1>\n",
        '#   ServerName \\\n  "not a directive"\n',
        "  # ünï %h ${x}\n",
        "\r\n",
    ]
)
END = st.sampled_from(["\n", "\r\n", "  \n"])


@st.composite
def configurations(draw: st.DrawFn, depth: int = 0) -> tuple[str, list[tuple[str, list[str], int]]]:
    """A text, and what stands in it: name, words, and how deep."""
    text, expected = "", []
    for _ in range(draw(st.integers(0, 3))):
        text += draw(BEFORE)
        name, words = draw(NAME), draw(st.lists(ANY_WORD, max_size=3))
        written = "".join(draw(BREAK) + (quoted(word) if word else '""') for word in words)
        if depth < 2 and draw(st.booleans()):
            inner, children = draw(configurations(depth + 1))
            expected += [(name, words, depth), *children]
            text += f"<{name}{written}>{draw(END)}{inner}</{draw(st.sampled_from([name, name.lower()]))}>{draw(END)}"
        else:
            expected.append((name, words, depth))
            text += f"{name}{written}{draw(END)}"
    return text, expected


def outline(directives: list[Directive]) -> list[tuple[str, list[str], int]]:
    return [(one.name, one.words, len(one.within)) for one in directives]


@unhurried
@given(configurations())
def test_what_was_written_is_read(configuration: tuple[str, list[tuple[str, list[str], int]]]) -> None:
    text, expected = configuration
    assert outline(parse(text)) == expected


@unhurried
@given(configurations())
def test_lines_belong_to_one_directive_at_most(configuration: tuple[str, list[tuple[str, list[str], int]]]) -> None:
    text, _expected = configuration
    lines = text.split("\n")
    taken: list[int] = []
    for one in parse(text):
        taken += range(one.first, one.last + 1)
        joined = "".join(lines[one.first : one.last + 1])
        assert one.name in joined
        assert one.is_section == (one.closes >= 0) and (not one.is_section or one.closes > one.last)
    assert len(taken) == len(set(taken))


@unhurried
@given(ANY_WORD)
def test_a_quoted_argument_is_that_argument_again_and_no_more(word: str) -> None:
    written = quoted(word)
    assert split_words(f"{written} behind") == [word, "behind"]
    (one,) = parse(f"Name {written} behind\n")
    assert one.words == [word, "behind"]


@unhurried
@given(st.text("<>/Ab \\\n\"'#$%", max_size=30))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        parse(text)
    except BadSyntax as error:
        assert 1 <= error.line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('combined "a b" c', ["combined", "a b", "c"]),
        ("'a \"b' \"c 'd\"", ['a "b', "c 'd"]),
        (r'"%h \"%r\" \\ \n"', [r'%h "%r" \ \n']),
        (r"C:\path \"x", ["C:\\path", '\\"x']),
        (r"a\\b", [r"a\b"]),
        ('"not closed and the rest', ["not closed and the rest"]),
        ('\'not closed and the "rest"', ['not closed and the "rest"']),
        ('"a"b', ["a", "b"]),
        ('a"b c"', ['a"b', 'c"']),
        ("", []),
    ],
)
def test_arguments_are_split_as_apache_splits_them(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ('"Include" /x', "Include", ["/x"]),
        ("'Include'/x", "Include", ["/x"]),
        ('"Include', "Include", []),
        ("Incl\\\nude /x", "Include", ["/x"]),
        ("\tServerName\tx", "ServerName", ["x"]),
    ],
)
def test_a_name_is_what_apache_takes_for_it(text: str, name: str, words: list[str]) -> None:
    (one,) = parse(text)
    assert (one.name, one.words) == (name, words) and one.called(name.lower())


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("<VirtualHost *:80>\nServerName x\n", 1, "<VirtualHost> is not closed"),
        ("ServerName x\n</VirtualHost>\n", 2, "</VirtualHost> without <VirtualHost>"),
        ("<A x>\n<B y>\n</A>\n</B>\n", 3, "</A> where </B> is expected"),
        ("A x\nB \\\n", 2, "continued by a backslash"),
        ("A x \\", 1, "continued by a backslash"),
        ("\n<VirtualHost *:80\n", 2, "is no section"),
        ("<VirtualHost *:80> ServerName x\n</VirtualHost>\n", 1, "is no section"),
        ('"<VirtualHost" *:80>\n', 1, "is no directive"),
        ('""\n', 1, "is no directive"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(BadSyntax) as caught:
        parse(text)
    assert caught.value.line == line and words in str(caught.value)


def test_sections_keep_what_is_in_their_quotes() -> None:
    inner = '  <If "%{HTTP_HOST} > \'3\'">\n    <Directory "/a>b">\n    </Directory>\n  </if>\n'
    text = f"<VirtualHost *:80>\n{inner}</VIRTUALHOST>\n"
    host, condition, directory = parse(text)
    assert condition.words == ["%{HTTP_HOST} > '3'"] and directory.words == ["/a>b"]
    assert [name for name, _arguments in directory.within] == ["virtualhost", "if"]
    assert (host.first, host.closes) == (0, 5) and (directory.first, directory.closes) == (2, 3)
