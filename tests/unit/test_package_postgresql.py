"""psycopg on Debian's libpq, as the Debian package has it: a login of the agent's is tried on a real PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from private_postgresql import PrivateCluster
from scalarizr.postgresql.login import Job, Outcome

pytestmark = [pytest.mark.postgresql, pytest.mark.root]
# The import fails where this says what psycopg shall be made of and there is no libpq.
PURE = os.environ | {"PSYCOPG_IMPL": "python"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster() as made:
        made.psql("CREATE ROLE somebody LOGIN PASSWORD 'the right one'")
        yield made


def tried(cluster: PrivateCluster, password: str) -> Outcome:
    job = Job(["127.0.0.1"], cluster.port, "somebody", password)
    done = subprocess.run(
        [sys.executable, "-m", "scalarizr.postgresql.login"],
        input=msgspec.json.encode(job),
        env=PURE,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=Outcome)


def test_the_right_password_logs_in_and_a_wrong_one_does_not(cluster: PrivateCluster) -> None:
    shown = "import psycopg; print(psycopg.pq.__impl__)"
    assert subprocess.check_output([sys.executable, "-c", shown], env=PURE, timeout=100).split() == [b"python"]
    assert tried(cluster, "the right one") == Outcome("127.0.0.1", [])
    refused = tried(cluster, "a wrong one")
    assert refused.proved_at is None and "authentication failed" in refused.failures[0], refused
