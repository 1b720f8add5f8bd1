"""How replication stands, told by real servers: a primary, a standby, one behind it, a paused one, a broken one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from private_postgresql import PrivateCluster
from running_agent import RunningAgent
from scalarizr.postgresql.cluster import find_cluster
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.replication import replication_status
from scalarizr.settings.model import Postgresql
from waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


def status_of(cluster: PrivateCluster) -> dict[str, Any]:
    return replication_status(Server(find_cluster(Postgresql(data_dir=cluster.data_dir)), "postgres"))


@pytest.fixture(scope="module")
def primary() -> Iterator[PrivateCluster]:
    with PrivateCluster() as cluster:
        cluster.psql("CREATE TABLE numbers (n int)")
        yield cluster


@pytest.fixture(scope="module")
def standby(primary: PrivateCluster) -> Iterator[PrivateCluster]:
    with primary.standby(name="first standby") as cluster:
        yield cluster


def test_a_primary_without_replicas_is_up(primary: PrivateCluster) -> None:
    assert status_of(primary) == {"master": {"status": "up", "replicas": []}}


def test_a_primary_names_its_replicas_and_how_far_behind_they_are(
    primary: PrivateCluster, standby: PrivateCluster
) -> None:
    primary.psql("INSERT INTO numbers VALUES (1)")
    primary.wait_for_replay(standby)
    wait_for(lambda: [r["replay_lag_bytes"] for r in status_of(primary)["master"]["replicas"]] == [0])
    (replica,) = status_of(primary)["master"]["replicas"]
    assert set(replica) == {"application_name", "client_addr", "state", "sync_state", "replay_lag_bytes", "replay_lag"}
    assert replica["application_name"] == "first standby" and replica["client_addr"] is None
    assert (replica["state"], replica["sync_state"]) == ("streaming", "async")
    assert replica["replay_lag"] is None or replica["replay_lag"] >= 0


def test_a_standby_that_has_replayed_all_it_received_has_no_delay(
    primary: PrivateCluster, standby: PrivateCluster, tmp_path: Path
) -> None:
    primary.psql("INSERT INTO numbers VALUES (2)")
    primary.wait_for_replay(standby)
    with RunningAgent(tmp_path, standby.settings) as agent, agent.client() as api:
        told = wait_for(lambda: [t for t in [api.postgresql.replication_status()["slave"]] if t["xlog_delay"] == 0])[0]
    assert told["status"] == "up" and told["replay_lag_bytes"] == 0
    assert told["paused"] is False and told["replayed_lsn"] == told["received_lsn"] != ""
    assert (told["sender_host"], told["sender_port"]) == (str(primary.socket_dir), primary.port)
    assert "error" not in told


def test_a_replica_over_tcp_has_an_address(primary: PrivateCluster) -> None:
    primary.psql("CREATE ROLE copier REPLICATION LOGIN PASSWORD 'copies'")
    with primary.standby(name="far away", started=False) as far:
        far.follow(f"host=127.0.0.1 port={primary.port} user=copier password=copies application_name=far")
        far.start()
        replicas = wait_for(
            lambda: [r for r in status_of(primary)["master"]["replicas"] if r["application_name"] == "far"]
        )
        assert replicas[0]["client_addr"] == "127.0.0.1"
        wait_for(lambda: status_of(far)["slave"]["status"] == "up")
        assert "copies" not in str(status_of(far))


def test_a_standby_in_the_middle_tells_of_both_sides(primary: PrivateCluster, standby: PrivateCluster) -> None:
    with standby.standby(name="second standby") as second:
        primary.psql("INSERT INTO numbers VALUES (3)")
        primary.wait_for_replay(second)
        middle = wait_for(lambda: [status_of(standby)["slave"]] if status_of(standby)["slave"]["replicas"] else None)[0]
        assert middle["status"] == "up" and middle["sender_port"] == primary.port
        assert [replica["application_name"] for replica in middle["replicas"]] == ["second standby"]
        last = status_of(second)["slave"]
        assert last["status"] == "up" and last["sender_port"] == standby.port
        wait_for(lambda: status_of(second)["slave"]["xlog_delay"] == 0)


def test_a_paused_standby_falls_behind_and_catches_up(primary: PrivateCluster, standby: PrivateCluster) -> None:
    primary.psql("INSERT INTO numbers VALUES (4)")
    primary.wait_for_replay(standby)
    standby.psql("SELECT pg_wal_replay_pause()")
    try:
        primary.psql("INSERT INTO numbers SELECT generate_series(1, 1000)")
        told = wait_for(lambda: [t for t in [status_of(standby)["slave"]] if t["replay_lag_bytes"]])[0]
        assert told["status"] == "up" and told["paused"] is True and told["replay_lag_bytes"] > 1000
        assert told["xlog_delay"] > 0
        wait_for(lambda: status_of(standby)["slave"]["xlog_delay"] > told["xlog_delay"])
        behind = [r["replay_lag_bytes"] for r in status_of(primary)["master"]["replicas"]]
        assert max(behind) > 1000
    finally:
        standby.psql("SELECT pg_wal_replay_resume()")
    wait_for(lambda: status_of(standby)["slave"]["xlog_delay"] == 0)
    assert status_of(standby)["slave"]["paused"] is False


def test_a_standby_whose_primary_refuses_it_is_down_and_says_whom_it_follows(primary: PrivateCluster) -> None:
    with primary.standby(name="broken", started=False) as broken:
        broken.follow(f"host=127.0.0.1 port={primary.port} user=nobody password=planted-word")
        broken.start()
        # Now and then there is one for a moment, until its primary has refused it again.
        (told,) = wait_for(lambda: [t for t in [status_of(broken)["slave"]] if "No WAL receiver runs" in str(t)])
        assert told["status"] == "down"
        assert f"host=127.0.0.1 port={primary.port}" in told["error"] and "planted-word" not in str(told)


def test_a_standby_notices_that_its_primary_is_gone_and_is_back(
    primary: PrivateCluster, standby: PrivateCluster
) -> None:
    wait_for(lambda: status_of(standby)["slave"]["status"] == "up")
    primary.stop()
    try:
        down = wait_for(lambda: [t for t in [status_of(standby)["slave"]] if t["status"] == "down"])[0]
        assert "gets nothing from its primary" in down["error"]
        assert status_of(primary)["master"]["status"] == "down"
    finally:
        primary.start()
    wait_for(lambda: status_of(standby)["slave"]["status"] == "up")


def test_a_stopped_standby_is_a_slave_that_is_down(primary: PrivateCluster) -> None:
    with primary.standby(started=False) as never:
        told = status_of(never)
    assert set(told) == {"slave"} and told["slave"]["status"] == "down" and "does not run" in told["slave"]["error"]


def test_a_promoted_standby_is_a_primary(primary: PrivateCluster) -> None:
    with primary.standby() as heir:
        heir.promote()
        assert wait_for(lambda: "master" in status_of(heir))
        assert status_of(heir)["master"]["status"] == "up"


def test_no_connection_stays_behind_and_many_may_ask_at_once(primary: PrivateCluster, tmp_path: Path) -> None:
    with RunningAgent(tmp_path, primary.settings) as agent, agent.client() as api, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.postgresql.replication_status(), range(24)))
    assert all(answer["master"]["status"] == "up" for answer in answers)
    own = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'scalarizr'"
    wait_for(lambda: primary.psql(own) == "0")
