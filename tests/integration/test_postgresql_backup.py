"""Backups of a real PostgreSQL: made through the agent, restored by the documentation's commands, compared whole."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_postgresql import PrivateCluster, programs
from private_s3 import PrivateS3
from running_agent import RunningAgent
from scalarizr.client import AgentError, Client

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

PAGE = Path(__file__).parents[2] / "docs" / "backups.md"
ODD = "we=ird 'name\" -ü"

RICH = """
CREATE ROLE app LOGIN PASSWORD 'app-password';
CREATE ROLE "odd role'""x" NOLOGIN;
CREATE ROLE auditor; GRANT auditor TO app WITH ADMIN OPTION;
ALTER ROLE app SET work_mem = '7MB';
CREATE TABLESPACE fast OWNER app LOCATION '{tablespace}';
GRANT CREATE ON TABLESPACE fast TO "odd role'""x";
CREATE DATABASE shop OWNER app;
CREATE DATABASE "we=ird 'name"" -ü" TABLESPACE fast;
CREATE DATABASE "a/b"; CREATE DATABASE "..";
CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE shop TO auditor;
ALTER DATABASE shop SET statement_timeout = '77s';
ALTER ROLE app IN DATABASE shop SET search_path = 'Sales', public;
COMMENT ON DATABASE shop IS 'what is sold';
CREATE TABLE in_postgres (n int); INSERT INTO in_postgres VALUES (1);
"""
SHOP = '''
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
SET ROLE app;
CREATE SCHEMA "Sales";
GRANT USAGE ON SCHEMA "Sales" TO auditor;
CREATE TABLE "Sales"."Order ""Items""" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, raw bytea,
    price numeric(12,2), bought timestamptz DEFAULT '2026-01-01', tags public.hstore);
INSERT INTO "Sales"."Order ""Items""" (what, raw, price, tags)
    SELECT E'thing \\n\\t\\\\ ' || g || ' ü€', sha256(g::text::bytea), g / 7.0, public.hstore('n', g::text)
    FROM generate_series(1, 20000) g;
CREATE INDEX ON "Sales"."Order ""Items""" USING gin (what public.gin_trgm_ops);
GRANT SELECT (id, what) ON "Sales"."Order ""Items""" TO auditor;
CREATE SEQUENCE public.plain START 5 INCREMENT 3; SELECT nextval('public.plain') FROM generate_series(1, 4);
CREATE SEQUENCE public.untouched; SELECT setval('public.untouched', 42, false);
GRANT USAGE ON SEQUENCE public.plain TO auditor;
RESET ROLE;
CREATE TABLE parted (day date, n int) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01') TABLESPACE fast;
CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT '2026-01-01'::date + g, g FROM generate_series(0, 60) g;
ALTER TABLE parted ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON parted TO app USING (n > 10);
CREATE FUNCTION doubled(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2'; REVOKE ALL ON FUNCTION doubled FROM PUBLIC;
CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS c, sum(n) AS s FROM parted;
ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO auditor;
SELECT lo_from_bytea(4711, convert_to(repeat('large ', 100000), 'UTF8'));
SELECT lo_from_bytea(4712, '\\x00ff00');
ALTER LARGE OBJECT 4711 OWNER TO app; GRANT SELECT ON LARGE OBJECT 4711 TO auditor;
COMMENT ON LARGE OBJECT 4712 IS 'three bytes';
'''

SHARED = """
SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
    rolconnlimit, rolpassword, rolvaliduntil FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1;
SELECT r.rolname, m.rolname, admin_option FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid
    JOIN pg_roles m ON m.oid = a.member ORDER BY 1, 2;
SELECT coalesce(d.datname, '-'), coalesce(r.rolname, '-'), setconfig FROM pg_db_role_setting s
    LEFT JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole ORDER BY 1, 2;
SELECT spcname, pg_get_userbyid(spcowner), spcacl, pg_tablespace_location(oid) FROM pg_tablespace ORDER BY 1;
SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datistemplate,
    datallowconn, datconnlimit, (SELECT spcname FROM pg_tablespace s WHERE s.oid = dattablespace),
    shobj_description(oid, 'pg_database'),
    (SELECT string_agg(coalesce(r.rolname, 'public') || '=' || privilege_type, ',' ORDER BY r.rolname, privilege_type)
        FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a LEFT JOIN pg_roles r ON r.oid = a.grantee)
    FROM pg_database ORDER BY 1;
"""
OBJECTS = """
SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(relowner), relrowsecurity,
    (SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace),
    (SELECT string_agg(format('%s=%s/%s%s', coalesce(g.rolname, 'public'), privilege_type, b.rolname, is_grantable), ','
        ORDER BY g.rolname, privilege_type) FROM aclexplode(coalesce(relacl, acldefault('r', relowner))) a
        LEFT JOIN pg_roles g ON g.oid = a.grantee LEFT JOIN pg_roles b ON b.oid = a.grantor)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1, 2;
SELECT nspname, pg_get_userbyid(nspowner), nspacl FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)' ORDER BY 1;
SELECT attrelid::regclass::text, attname, attacl FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid > 16383
    ORDER BY 1, 2;
SELECT oid::regprocedure::text, pg_get_userbyid(proowner), proacl, md5(prosrc) FROM pg_proc WHERE oid > 16383
    ORDER BY 1;
SELECT pg_get_userbyid(defaclrole), defaclobjtype, defaclacl FROM pg_default_acl ORDER BY 1, 2;
SELECT polname, polrelid::regclass, polroles::regrole[], pg_get_expr(polqual, polrelid) FROM pg_policy ORDER BY 1;
SELECT extname, extversion FROM pg_extension ORDER BY 1;
SELECT schemaname, sequencename, start_value, increment_by, last_value FROM pg_sequences ORDER BY 1, 2;
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE oid > 16383 ORDER BY 1, 2;
SELECT oid, pg_get_userbyid(lomowner), lomacl, md5(lo_get(oid)), length(lo_get(oid)),
    obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata ORDER BY 1;
"""
ROWS = r"""
SELECT format('SELECT %L, count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text COLLATE "C")) FROM %s;',
    nspname || '.' || relname,
    format(CASE relkind WHEN 'S' THEN '(SELECT last_value, is_called FROM %I.%I) t' ELSE '%I.%I t' END,
        nspname, relname))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm', 'p', 'S') AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1 \gexec
"""


def by_name(database: str) -> str:
    """Name a database to psql, which takes a name with `=` in it for a connection string."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def everything_in(cluster: PrivateCluster) -> dict[str, str]:
    """Give all that a cluster holds, as text: what is shared, and of each database its objects and every row."""
    found = {"shared": cluster.psql(SHARED)}
    for name in cluster.psql("SELECT datname FROM pg_database WHERE datallowconn").splitlines():
        found[name] = cluster.psql(OBJECTS + ROWS, by_name(name))
    return found


def the_two_commands() -> list[str]:
    section = PAGE.read_text().partition("## Restoring: two commands")[2]
    block = re.search(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line[2:] for line in block[1].replace("\\\n", " ").splitlines() if line.startswith("# ")]


def restore(directory: Path, cluster: PrivateCluster) -> str:
    """Do what the documentation says; gives what it said."""
    place = {"PGHOST": str(cluster.socket_dir), "PGPORT": str(cluster.port)}
    path = f"{programs()}:{os.environ['PATH']}"
    said = []
    for command in the_two_commands():
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=directory,
            env={**place, "PATH": path, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    return "".join(said)


@pytest.fixture(scope="module")
def s3() -> Iterator[PrivateS3]:
    with PrivateS3() as store:
        yield store


@pytest.fixture
def tablespace() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="pg-fast-", dir="/tmp"))
    shutil.chown(directory, "postgres", "postgres")
    yield directory
    for left in Path("/tmp").glob(f"{directory.name}*"):
        shutil.rmtree(left)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster() as running:
        running.psql("CREATE ROLE app LOGIN")
        running.psql("CREATE DATABASE shop OWNER app")
        running.psql("CREATE TABLE t AS SELECT g AS n, md5(g::text) AS m FROM generate_series(1, 30000) g", "shop")
        yield running


@pytest.fixture
def agent(tmp_path: Path, cluster: PrivateCluster) -> Iterator[RunningAgent]:
    settings = f'{cluster.settings}[backup]\nstore = "file://{tmp_path}/store"\n'
    with RunningAgent(tmp_path / "agent", settings) as running:
        yield running


def made(client: Client, **arguments: Any) -> dict[str, Any]:
    result = client.postgresql.create_backup(async_=False, **arguments)
    assert isinstance(result, dict)
    return result


def test_the_two_documented_commands_restore_every_row_sequence_privilege_and_large_object(
    tmp_path: Path, tablespace: Path
) -> None:
    with PrivateCluster() as original:
        original.psql(RICH.format(tablespace=tablespace))
        original.psql(SHOP, "shop")
        original.psql("CREATE TABLE placed (n int); INSERT INTO placed SELECT generate_series(1, 1000)", by_name(ODD))
        original.psql("CREATE TABLE l (t text); INSERT INTO l VALUES ('ä'), (U&'\\00e9')", "latin")
        original.psql("CREATE TABLE in_every_new_one (n int); INSERT INTO in_every_new_one VALUES (7)", "template1")
        settings = f'{original.settings}[backup]\nstore = "file://{tmp_path}/store"\njobs = 2\n'
        with RunningAgent(tmp_path / "agent", settings) as agent, agent.client(timeout=100) as client:
            backup = made(client)
        expected = everything_in(original)
    assert {part["database"] for part in backup["parts"]} == {
        None, "postgres", "template1", "shop", "latin", "a/b", "..", ODD,
    }  # fmt: skip
    assert backup["skipped"] == []
    # The original is gone, as it is when one needs a backup; its tablespace's place is there, and empty.
    shutil.rmtree(tablespace)
    tablespace.mkdir()
    shutil.chown(tablespace, "postgres", "postgres")
    with PrivateCluster() as copy:
        said = restore((tmp_path / "store" / backup["manifest"]).parent, copy)
        assert re.findall("ERROR: .*", said) == ['ERROR:  role "postgres" already exists']
        found = everything_in(copy)
        assert "in_every_new_one" in found["template1"] and "4711|app|" in found["shop"]
        assert "20000" in found["shop"] and "|1000|" in found[ODD]
        assert found.keys() == expected.keys()
        for name, text in expected.items():
            assert found[name].splitlines() == text.splitlines()


def test_a_backup_says_what_it_holds_and_its_files_are_private(agent: RunningAgent, tmp_path: Path) -> None:
    with agent.client(timeout=100) as client:
        operation = client.postgresql.create_backup(async_=True)
        records: list[Any] = []
        backup = operation.wait(records.append)
        assert records[-1].progress["unit"] == "bytes" and records[-1].progress["percent"] == 100
        assert any("database 'shop'" in line for line in records[-1].logs)
        (listed,) = client.postgresql.list_backups()
        assert listed["manifest"] == backup["manifest"] and listed["complete"] and listed["problem"] is None
        assert listed["databases"] == ["postgres", "shop", "template1"]
        assert listed["size"] == sum(part["size"] for part in backup["parts"])
        verified = client.postgresql.verify_backup(manifest=backup["manifest"], async_=False)
        assert verified["valid"] and verified["parts"] == backup["parts"]
    store = tmp_path / "store"
    for part in backup["parts"]:
        done = subprocess.run(["sha256sum", store / part["path"]], capture_output=True, text=True)
        assert done.stdout.split()[0] == part["sha256"] and (store / part["path"]).stat().st_size == part["size"]
    assert {path.stat().st_mode & 0o777 for path in store.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in [store, *store.rglob("*")] if path.is_dir()} == {0o700}
    manifest = json.loads((store / backup["manifest"]).read_text())
    assert manifest["parts"][0]["path"] == backup["parts"][0]["path"] and manifest["compression"] == "zstd:3"
    assert {path.name for path in (store / backup["manifest"]).parent.iterdir()} == {
        "globals.sql.zst", "postgres.dump.zst", "shop.dump.zst", "template1.dump.zst", "manifest.json",
    }  # fmt: skip


def test_damage_is_found_and_named(agent: RunningAgent, tmp_path: Path) -> None:
    with agent.client(timeout=100) as client:
        backup = made(client)
        path = next(part["path"] for part in backup["parts"] if part["database"] == "shop")
        place = tmp_path / "store" / path
        good = place.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        place.write_bytes(bad)
        with pytest.raises(AgentError, match=f"{path} has another SHA-256"):
            client.postgresql.verify_backup(manifest=backup["manifest"], async_=False)
        place.write_bytes(good[:-1])
        with pytest.raises(AgentError, match=f"{path} has {len(good) - 1} bytes in place of {len(good)}"):
            client.postgresql.verify_backup(manifest=backup["manifest"], async_=False)
        place.unlink()
        with pytest.raises(AgentError, match=f"{path} is missing"):
            client.postgresql.verify_backup(manifest=backup["manifest"], async_=False)
        (listed,) = client.postgresql.list_backups()
        assert not listed["complete"] and path in listed["problem"]
        (tmp_path / "store" / backup["manifest"]).write_text("{}")
        (listed,) = client.postgresql.list_backups()
        assert not listed["complete"] and "no manifest" in listed["problem"]


def test_a_deleted_backup_is_gone_and_one_that_is_not_there_is_not_found(agent: RunningAgent, tmp_path: Path) -> None:
    with agent.client(timeout=100) as client:
        backup = made(client)
        for wrong in ("../../etc/passwd", "postgresql/../x/manifest.json", "", "postgresql/a/manifest.json"):
            with pytest.raises(AgentError) as caught:
                client.postgresql.delete_backup(manifest=wrong)
            assert caught.value.code == -32602
        client.postgresql.delete_backup(manifest=f"file://{tmp_path}/store/{backup['manifest']}")
        assert client.postgresql.list_backups() == []
        assert not list((tmp_path / "store").rglob("*.zst"))
        for method, further in (("delete_backup", {}), ("verify_backup", {"async_": False})):
            with pytest.raises(AgentError) as caught:
                client.call(f"postgresql.{method}", manifest=backup["manifest"], **further)
            assert caught.value.code == -32011


def test_retention_keeps_the_newest_whole_ones_and_never_the_last_good_one_goes(
    agent: RunningAgent, tmp_path: Path, cluster: PrivateCluster
) -> None:
    store = tmp_path / "store"
    with agent.client(timeout=100) as client:
        first, second, third = (made(client)["manifest"] for _ in range(3))
    # One of another server in the same store, which is none of ours; and one that is damaged, which does not count.
    other = store / "postgresql" / "20200101T000000000Z-0badcafe-000000"
    shutil.copytree((store / first).parent, other)
    next((store / third).parent.glob("shop*")).unlink()
    agent.stop()
    agent.write_settings(f'{cluster.settings}[backup]\nstore = "file://{store}"\nkeep = 2\n')
    agent.start()
    with agent.client(timeout=100) as client:
        fourth = made(client)["manifest"]
        left = [listed["manifest"] for listed in client.postgresql.list_backups()]
    assert left == [fourth, third, second, f"postgresql/{other.name}/manifest.json"]
    agent.stop()
    agent.write_settings(f'{cluster.settings}[backup]\nstore = "file://{store}"\nkeep = 0\n')
    agent.start()
    with agent.client(timeout=100) as client:
        fifth = made(client)["manifest"]
        assert [listed["manifest"] for listed in client.postgresql.list_backups()][:-1] == [fifth]


def test_s3_takes_what_a_directory_takes(s3: PrivateS3, cluster: PrivateCluster, tmp_path: Path) -> None:
    settings = (
        f'{cluster.settings}[backup]\nstore = "s3://{s3.bucket}/some/prefix"\nendpoint_url = "{s3.endpoint_url}"\n'
        'keep = 1\ncompression = "none"\n'
    )
    access = {"_platform_access_data": s3.access}
    with RunningAgent(tmp_path / "agent", settings) as agent, agent.client(timeout=100) as client:
        first = made(client, **access)
        backup = made(client, **access)
        assert {part["path"].rsplit("/", 1)[1] for part in backup["parts"]} == {
            "globals.sql", "postgres.dump", "shop.dump", "template1.dump",
        }  # fmt: skip
        listed = client.postgresql.list_backups(**access)
        assert [one["manifest"] for one in listed] == [backup["manifest"]] != [first["manifest"]]
        assert client.postgresql.verify_backup(manifest=backup["manifest"], async_=False, **access)["valid"]
        client.postgresql.delete_backup(manifest=backup["manifest"], **access)
        assert client.postgresql.list_backups(**access) == []
        agent.stop()
        text = agent.log_text() + "".join(
            path.read_bytes().decode("latin-1") for path in agent.state.rglob("*") if path.is_file()
        )
    assert s3.access["key"] not in text and s3.access["key_id"] not in text


def test_a_database_that_takes_no_connections_is_left_out_and_named(
    agent: RunningAgent, cluster: PrivateCluster
) -> None:
    cluster.psql("CREATE DATABASE closed")
    cluster.psql("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    try:
        with agent.client(timeout=100) as client:
            backup = made(client)
            assert [one["database"] for one in backup["skipped"]] == ["closed"]
            assert client.postgresql.list_backups()[0]["skipped"] == backup["skipped"]
            assert "closed" not in {part["database"] for part in backup["parts"]}
    finally:
        cluster.psql("DROP DATABASE closed")


def test_a_server_that_does_not_run_is_said_so_and_nothing_is_written(tmp_path: Path) -> None:
    with PrivateCluster(started=False) as stopped:
        settings = f'{stopped.settings}[backup]\nstore = "file://{tmp_path}/store"\n'
        with RunningAgent(tmp_path / "agent", settings) as agent, agent.client(timeout=100) as client:
            with pytest.raises(AgentError, match="does not run"):
                made(client)
            assert client.postgresql.list_backups() == []
    assert not (tmp_path / "store").exists()


def test_a_standby_is_backed_up_as_well(tmp_path: Path, cluster: PrivateCluster) -> None:
    with cluster.standby() as standby:
        cluster.wait_for_replay(standby)
        settings = f'{standby.settings}[backup]\nstore = "file://{tmp_path}/store"\n'
        with RunningAgent(tmp_path / "agent", settings) as agent, agent.client(timeout=100) as client:
            backup = made(client)
        part = next(part for part in backup["parts"] if part["database"] == "shop")
        unpacked = subprocess.run(["zstd", "-dc", tmp_path / "store" / part["path"]], capture_output=True, check=True)
        listing = tmp_path / "shop.dump"
        listing.write_bytes(unpacked.stdout)
        assert "TABLE DATA public t" in subprocess.run(
            [programs() / "pg_restore", "--list", listing], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip


def test_wrong_settings_are_refused_before_anything_is_written(tmp_path: Path, cluster: PrivateCluster) -> None:
    agent = RunningAgent(tmp_path / "agent", "")
    for lines, words in (
        ('store = "s3://bucket/x?secret=planted-secret"', "expected file:///directory"),
        (f'store = "file://{tmp_path}/store"\ncompression = "zstd:99"', "compression"),
    ):
        agent.write_settings(f"{cluster.settings}[backup]\n{lines}\n")
        with agent, agent.client(timeout=100) as client, pytest.raises(AgentError) as caught:
            made(client)
        assert words in str(caught.value) and "planted-secret" not in str(caught.value)
    assert not (tmp_path / "store").exists()
