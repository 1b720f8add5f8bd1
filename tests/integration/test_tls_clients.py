"""The Python client and the command line over TLS: whom they believe, what they show, what they say where it fails."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from certificate_authority import CLIENT, Authority
from conftest import with_test_methods
from running_agent import RunningAgent
from scalarizr.client import AsyncClient, AuthenticationFailed, CertificateUnusable, Client, ClientError, Unreachable
from tls_agent import TlsAgent


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsAgent]:
    directory = tmp_path_factory.mktemp("tls")
    made = TlsAgent(lambda settings: with_test_methods(directory / "agent", settings), directory)
    with made.agent:
        yield made


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsAgent]:
    """An agent that asks clients for a certificate."""
    directory = tmp_path_factory.mktemp("tls")
    made = TlsAgent(lambda settings: RunningAgent(directory / "agent", settings), directory, clients=True)
    with made.agent:
        yield made


def client(served: TlsAgent, url: str = "", **options: Any) -> Client:
    return Client(url or served.url, key_file=served.agent.key_file, **{"timeout": 60, **options})


def failure(served: TlsAgent, url: str = "", **options: Any) -> ClientError:
    with pytest.raises(ClientError) as caught, client(served, url, **options) as api:
        api.system.load_average()
    return caught.value


@pytest.mark.parametrize("envelope", ["sealed", "founding"])
def test_both_envelopes_over_connections_that_are_kept(served: TlsAgent, envelope: str) -> None:
    with client(served, ca=served.authority.ca, envelope=envelope) as api:
        for number in range(5):
            assert api.trial.types(number=number)[1] == number
        assert api.trial.big(size=3 << 20) == "x" * (3 << 20)


def test_many_calls_at_once(served: TlsAgent) -> None:
    with client(served, ca=served.authority.ca) as api, ThreadPoolExecutor(8) as threads:
        assert [found[1] for found in threads.map(lambda number: api.trial.types(number=number), range(40))] == list(
            range(40)
        )


def test_the_asynchronous_client(served: TlsAgent) -> None:
    async def talk() -> list[int]:
        options = {"key_file": served.agent.key_file, "ca": served.authority.ca, "timeout": 60}
        async with AsyncClient(served.url, **options) as api:
            found = await asyncio.gather(*(api.trial.types(number=number) for number in range(20)))
        async with AsyncClient(served.url, key_file=served.agent.key_file) as api:
            with pytest.raises(AuthenticationFailed, match="shows a certificate that is not believed"):
                await api.system.load_average()
        return [one[1] for one in found]

    assert asyncio.run(talk()) == list(range(20))


def test_a_kept_connection_that_the_agent_closed_is_made_anew(tmp_path: Path) -> None:
    served = TlsAgent(lambda settings: RunningAgent(tmp_path / "agent", settings), tmp_path)
    with served.agent, client(served, ca=served.authority.ca) as api:
        assert len(api.system.load_average()) == 3
        served.agent.stop()
        served.agent.start()
        assert len(api.system.load_average()) == 3
        served.agent.kill()
        served.agent.start()
        assert len(api.system.load_average()) == 3


def test_the_very_certificate_of_an_agent_may_be_what_is_believed(served: TlsAgent) -> None:
    with client(served, ca=served.pair.certificate) as api:
        assert len(api.system.load_average()) == 3


def test_a_certificate_that_is_not_believed_or_is_anothers_is_told(served: TlsAgent, tmp_path: Path) -> None:
    for options in ({}, {"ca": Authority(tmp_path, "Other CA").ca}):
        error = failure(served, **options)
        assert isinstance(error, AuthenticationFailed)
        assert str(error) == (
            f"The agent at 127.0.0.1:{served.port} shows a certificate that is not believed: "
            "unable to get local issuer certificate. Nothing was sent."
        )
    error = failure(served, f"https://127.0.0.2:{served.port}", ca=served.authority.ca)
    assert isinstance(error, Unreachable)  # nobody listens there
    elsewhere = TlsAgent(lambda settings: RunningAgent(tmp_path / "agent", settings), tmp_path)
    elsewhere.authority.issue("agent", hosts=["other.example.com"])
    with elsewhere.agent:
        error = failure(elsewhere, ca=elsewhere.authority.ca)
    assert isinstance(error, AuthenticationFailed) and "IP address mismatch" in str(error)


def test_the_wrong_port_is_told_both_ways(served: TlsAgent) -> None:
    error = failure(served, f"https://127.0.0.1:{served.agent.port}", ca=served.authority.ca)
    assert isinstance(error, Unreachable) and "does not speak TLS there: use http" in str(error)
    error = failure(served, f"http://127.0.0.1:{served.port}")
    assert "This port speaks TLS: use https" in str(error)


def test_an_agent_that_asks_for_a_certificate_gets_one(asking: TlsAgent) -> None:
    deploy = asking.client("deploy")
    options = {"ca": asking.authority.ca, "certificate": deploy.certificate, "certificate_key": deploy.key}
    with client(asking, **options) as api:
        assert len(api.system.load_average()) == 3
    both = deploy.certificate.with_name("both.pem")
    both.touch(0o600)
    both.write_bytes(deploy.certificate.read_bytes() + deploy.key.read_bytes())
    with client(asking, ca=asking.authority.ca, certificate=both) as api:
        assert len(api.system.load_average()) == 3


def test_without_one_or_with_a_wrong_one_it_is_told(asking: TlsAgent) -> None:
    error = failure(asking, ca=asking.authority.ca)
    assert isinstance(error, AuthenticationFailed)
    assert "accepts no client without a certificate that it knows the issuer of" in str(error)
    wrong = asking.authority.issue("wrong", use=CLIENT)
    error = failure(asking, ca=asking.authority.ca, certificate=wrong.certificate, certificate_key=wrong.key)
    assert isinstance(error, AuthenticationFailed) and "refuses this client's certificate" in str(error)


def test_files_that_cannot_be_used_are_told_before_anything_is_sent(served: TlsAgent, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("deploy", use=CLIENT), authority.issue("other", use=CLIENT)
    encrypted = authority.issue("encrypted", passphrase=b"secret")
    (tmp_path / "garbage").write_text("garbage")
    cases: list[tuple[dict[str, Path], str]] = [
        ({"ca": tmp_path / "absent"}, "absent: cannot be read: No such file or directory."),
        ({"ca": tmp_path / "garbage"}, "garbage: holds no certificate that can be read (PEM)."),
        ({"certificate": tmp_path / "absent"}, "absent: cannot be read: No such file or directory."),
        ({"certificate": pair.certificate}, "deploy.crt: cannot be used with its key"),
        ({"certificate": pair.certificate, "certificate_key": other.key}, "deploy.crt: cannot be used with its key"),
        (encrypted._asdict(), "the key is encrypted with a passphrase, which is not asked for."),
    ]
    for options, words in cases:
        named = {{"key": "certificate_key"}.get(name, name): path for name, path in options.items()}
        with pytest.raises(CertificateUnusable) as caught:
            client(served, **named)
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="does not begin with https"):
        client(served, f"http://127.0.0.1:{served.agent.port}", ca=authority.ca)


def scalarizr(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "scalarizr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_line(asking: TlsAgent) -> None:
    deploy = asking.client("deploy")
    calling = ["call", "system.load_average", "--key", asking.agent.key_file, "--url"]
    shown = ["--certificate", deploy.certificate, "--certificate-key", deploy.key]
    believed = ["--ca", asking.authority.ca]
    finished = scalarizr(*calling, asking.url, *believed, *shown)
    assert finished.returncode == 0 and len(json.loads(finished.stdout)) == 3
    for options, status, words in (
        ([asking.url, *shown], 4, "shows a certificate that is not believed"),
        ([asking.url, *believed], 4, "accepts no client without a certificate"),
        ([asking.url, "--ca", "absent"], 4, "absent: cannot be read: No such file or directory."),
        ([asking.agent.url, *believed], 2, "does not begin with https"),
        ([f"https://127.0.0.1:{asking.agent.port}", *believed], 3, "does not speak TLS there"),
    ):
        finished = scalarizr(*calling, *options)
        assert finished.returncode == status and words in finished.stderr, finished.stderr
        assert finished.stdout == ""


def test_doctor_looks_at_what_the_running_agent_shows(asking: TlsAgent) -> None:
    text = (asking.agent.etc / "scalarizr.toml").read_text()
    listening = f'[api]\nlisten = "127.0.0.1:{asking.agent.port}"\n'
    (asking.agent.etc / "scalarizr.toml").write_text(listening + text)
    finished = scalarizr("doctor", "--etc", asking.agent.etc, "--json")
    found = {(one["verdict"], one["words"]) for one in json.loads(finished.stdout) if one["check"] in ("tls", "port")}
    assert ("ok", f"an agent answers on 127.0.0.1:{asking.agent.port}") in found
    assert ("ok", f"the agent shows this certificate on 127.0.0.1:{asking.port}") in found
    assert {verdict for verdict, _ in found} == {"ok"} and len(found) == 3
