"""Which lines of the log a caller with limited rights is shown."""

from scalarizr.system.shown_lines import lines_about

LOG = """\
2026-11-28T10:00:00.000Z INFO request=- started pid=1 listening=127.0.0.1:8010
2026-11-28T10:00:01.000Z DEBUG request=aa-1 params method=nginx.make_proxy {"hostname":"x"}
2026-11-28T10:00:01.100Z INFO request=aa-1 change id=7 method=nginx.make_proxy applied files=/etc/x
2026-11-28T10:00:01.200Z INFO request=aa-1 call method=nginx.make_proxy from=127.0.0.1 key=default envelope=sealed ok
2026-11-28T10:00:02.000Z ERROR request=aa-2 internal error reference=5
    Traceback (most recent call last):
    ValueError: of postgresql
2026-11-28T10:00:02.100Z INFO request=aa-2 call method=postgresql.create_backup from=127.0.0.1 key=default error=-32603
2026-11-28T10:00:03.000Z INFO request=aa-1 operation id=1 name=postgresql.create_backup resource=x new
2026-11-28T10:00:03.100Z INFO request=- operation id=2 name=nginx.reconfigure completed
2026-11-28T10:00:03.200Z INFO request=aa-1 operation id=1 cannot be started: the disk is full
2026-11-28T10:00:04.000Z WARNING request=- refused from=10.0.0.1 key=other verified=False reason=x
"""


def test_only_what_is_about_allowed_methods_is_shown() -> None:
    shown = lines_about(LOG, lambda method: method.startswith("nginx."))
    assert shown.splitlines() == [LOG.splitlines()[number] for number in (1, 2, 3, 9)]


def test_a_traceback_goes_with_its_line() -> None:
    shown = lines_about(LOG, lambda method: method == "postgresql.create_backup")
    assert "ValueError: of postgresql" in shown and "nginx" not in shown


def test_nothing_allowed_is_nothing_shown() -> None:
    assert lines_about(LOG, lambda _method: False) == ""
    assert lines_about("", lambda _method: True) == ""


def test_a_line_that_a_caller_wrote_into_a_line_is_no_line() -> None:
    forged = "2026-11-28T10:00:09.000Z INFO request=aa-2 call method=nginx.make_proxy x"
    for separator in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"):
        log = f"{LOG}2026-11-28T10:00:05.000Z INFO request=aa-9 call method=nginx.x{separator}{forged}\n"
        assert "postgresql" not in lines_about(log, lambda method: method.startswith("nginx."))
