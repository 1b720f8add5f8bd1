"""What there is on the server before each page's sessions, what happens behind the scenes, and what is left out."""

from guide_sessions import ANSWERS, FOREGROUND, Scene
from private_mongodb import ferretdb

# A server as `scalarizr init` and a service manager leave it.
INSTALLED = f"""
scalarizr init >/dev/null
scalarizr serve >/root/agent.out 2>&1 &
{ANSWERS}
"""
_TRIED = f"""
{FOREGROUND["make run"]} >/root/agent.out 2>&1 </dev/null & left_on=$!
{ANSWERS}
export SCALARIZR_ETC=$PWD/var
"""
_CLUSTER = r"""
version=$(ls /usr/lib/postgresql | sort -n | tail -1)
rm -rf /etc/postgresql/*/*
pg_createcluster $version guide -p 5432 DIRECTORY -- --no-sync >/dev/null
echo "fsync = off" >> /etc/postgresql/$version/guide/postgresql.conf
pg_ctlcluster $version guide start
"""
_POSTGRESQL = _CLUSTER.replace("DIRECTORY", "")
_SHOP = r"""
runuser -u postgres -- psql -Xq -d postgres -c 'CREATE DATABASE shop'
runuser -u postgres -- psql -Xq -d shop -c 'CREATE TABLE orders (n int)' -c 'INSERT INTO orders VALUES (1)'
"""
_MONGODB = rf"""
python - <<'EndOfProgram'
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from monitoring_package import compressed, shell_files, tar
Path("/srv/monitoring.tar.gz").write_bytes(compressed(tar(shell_files(Path("/srv/report"))), "gz"))
EndOfProgram
scalarizr init >/dev/null
sed -i -e '/^\[mongodb\]/a uri = "mongodb://first:word@127.0.0.1:27017/"' \
    -e '/^\[mongodb\]/a monitoring_agent = {{ package = "/srv/monitoring.tar.gz" }}' /etc/scalr/scalarizr.toml
mkdir /srv/ferretdb
{ferretdb()} --handler=sqlite --sqlite-url=file:/srv/ferretdb/ --state-dir=/srv/ferretdb --listen-addr=127.0.0.1:27017 \
    --debug-addr=- --telemetry=disable --log-level=error --test-enable-new-auth --setup-database=admin \
    --setup-username=first --setup-password=word >/dev/null 2>&1 </dev/null &
for try in $(seq 300); do (echo > /dev/tcp/127.0.0.1/27017) 2>/dev/null && break; sleep 0.1; done
"""
_SHOP_BACK = 'runuser -u postgres -- psql -Xq -d postgres -c "DROP DATABASE shop"'
_EMPTIED = 'runuser -u postgres -- psql -Xq -d shop -c "TRUNCATE orders"'
_UNTIL = "for try in $(seq 300); do {} && break; sleep 0.2; done"
_ONE_PROXY = """
service nginx start >/dev/null
scalarizr call nginx.make_proxy hostname=www.example.com hash_backend_name=false backends='[{"host": "127.0.0.1:8001"}]'
"""
# systemd's part, as far as the page needs it: where there is none, it is the same by hand.
_SYSTEMCTL = f"""
cat > /usr/local/bin/systemctl <<'EndOfProgram'
#!/bin/sh
agent=$(cat /root/agent.pid 2>/dev/null)
case $1 in
    start) setsid scalarizr serve >/root/agent.out 2>&1 </dev/null & echo $! > /root/agent.pid; {ANSWERS} ;;
    stop) kill $agent; while kill -0 $agent 2>/dev/null; do sleep 0.05; done ;;
    reload) scalarizr_log=/var/log/scalarizr.log; before=$(grep -c "settings re-read" $scalarizr_log); kill -HUP $agent
        while test "$(grep -c "settings re-read" $scalarizr_log)" = "$before"; do sleep 0.05; done ;;
esac
EndOfProgram
chmod 755 /usr/local/bin/systemctl
scalarizr init >/dev/null
systemctl start scalarizr
"""
_AUDITED = """
service nginx start >/dev/null
python - <<'EndOfProgram'
import subprocess, time
from scalarizr.client import AgentError, Client
subprocess.run(["scalarizr", "key", "add", "deploy", "--allow", "storage.*"], check=True)
keys = "/etc/scalr/private.d/keys"
with Client("http://10.0.0.7:8010", key_file=f"{keys}/default") as api:
    api.nginx.make_proxy(hostname="www.example.com", backends=[{"host": "10.0.1.1"}])
with Client("http://10.0.0.7:8010", key_file=f"{keys}/deploy", key_id="deploy") as api:
    api.storage.create(storage_config={"type": "loop", "size": 1}, async_=True)
    while '"event":"operation"' not in open("/var/log/scalarizr_audit.log").read():
        time.sleep(0.1)
    try:
        api.nginx.remove_proxy(hostname="www.example.com")
    except AgentError as refused:
        assert refused.code == -32017
EndOfProgram
"""
SCENES = {
    "README.md": Scene(),
    "docs/start.md": Scene(before={"scalarizr init": "kill -INT $left_on; wait $left_on; left_on="}),
    "docs/reverse-proxy.md": Scene(
        files={"[roles.1234]                      # the farm_role_id": "var/environment/roles.toml"},
        before={
            "scalarizr call nginx.enable_ssl hostname=www.example.com ssl_certificate_id=412": (
                "cp var/environment/certificates/410.crt var/environment/certificates/412.crt\n"
                "openssl ecparam -name prime256v1 -genkey -noout -out var/environment/certificates/412.key"
            ),
            'scalarizr call nginx.make_proxy hostname=blog.example.com backends=\'[{"host": "127.0.0.1:8001"}]\'': (
                "echo 'server { listen 80; server_name blog.example.com; }' > /etc/nginx/conf.d/blog.conf\n"
                "nginx -s reload"
            ),
            "scalarizr call nginx.make_proxy hostname=api.example.com port=8080"
            ' backends=\'[{"host": "127.0.0.1:8001"}]\'': (
                "nft 'table inet filter { chain input { type filter hook input priority 0; policy drop;"
                ' iif "lo" accept; ct state established,related accept; tcp dport 22 accept; }; }\''
            ),
            "scalarizr call nginx.reconfigure proxies=@var/proxies.json": (
                'echo \'[{"hostname": "a.example.com", "backends": [{"host": "127.0.0.1:8001"}]},'
                ' {"hostname": "b.example.com", "backends": [{"host": "127.0.0.1:99999"}]}]\' > var/proxies.json'
            ),
        },
    ),
    "docs/virtual-hosts.md": Scene(
        f"{_TRIED}\nservice apache2 start >/dev/null\nmkdir -p var/environment/certificates",
        files={"[[virtual_hosts]]": "var/environment/virtual_hosts.toml"},
        before={
            "scalarizr call apache.update_vhost signature='[\"shop.example.com\", 8081]' hostname=store.example.com"
            " port=8082": (
                "scalarizr call apache.create_vhost hostname=shop.example.com port=8081 template=@www.conf ssl=false"
            ),
            "scalarizr call apache.reconfigure": (
                "cp www.conf var/environment/www.conf\n"
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365"
                " -subj /CN=www.example.com -keyout var/environment/certificates/410.key"
                " -out var/environment/certificates/410.crt 2>/dev/null"
            ),
            "scalarizr call apache.reconfigure rollback_on_error=false --params - < hosts.json": (
                """printf '{"vhosts": [%s, {"hostname": "b.example.com", "port": 80, "template": "%s"}]}' """
                """'{"hostname": "a.example.com", "port": 80, "template": "<VirtualHost *:80>\\n</VirtualHost>\\n"}' """
                """'<VirtualHost *:80>\\nNonsense\\n</VirtualHost>\\n' > hosts.json"""
            ),
            "scalarizr call apache.disable_mod_ssl": "scalarizr call apache.reconfigure",
            "scalarizr call apache.create_vhost hostname=bad.example.com port=80 template=@bad.conf ssl=false": (
                "printf '<VirtualHost *:80>\\n<Directory /srv>\\nAllowOverwrite All\\n</Directory>\\n</VirtualHost>\\n'"
                " > bad.conf"
            ),
        },
    ),
    "docs/changes.md": Scene(
        INSTALLED + _ONE_PROXY,
        before={
            "scalarizr changes (2)": _UNTIL.format("scalarizr changes list --json | grep -q change.expire"),
            "scalarizr changes revert 001a2125b60d869b4bf90 (1)": (
                "cp -p /etc/nginx/proxies.include /root/kept; echo '# by hand' >> /etc/nginx/proxies.include"
            ),
            "scalarizr changes revert 001a2125b60d869b4bf90 (2)": (
                "cp -p /root/kept /etc/nginx/proxies.include\n"
                "scalarizr call nginx.add_server backend=www.example.com server=127.0.0.1:8002"
            ),
        },
    ),
    "docs/keys.md": Scene(
        INSTALLED,
        before={"from scalarizr.client import Client": "cp /etc/scalr/private.d/keys/monitoring monitoring.key"},
    ),
    "docs/scripts.md": Scene(
        "printf '#!/bin/sh\\nexit 0\\n' > /usr/local/bin/warm-up; chmod 755 /usr/local/bin/warm-up\n"
        "useradd --system app; mkdir -p /srv/app; cp /usr/local/bin/warm-up /srv/app/migrate\n" + INSTALLED,
        variables="password = 'of the database'\n",
    ),
    "docs/storage.md": Scene(INSTALLED),
    "docs/audit.md": Scene(INSTALLED + _AUDITED),
    "docs/operations.md": Scene(INSTALLED),
    "docs/operating.md": Scene(
        _SYSTEMCTL,
        before={
            "systemctl stop scalarizr": 'scalarizr call storage.create \'storage_config={"type": "loop", "size": 1}\'',
            'scalarizr call storage.create \'storage_config={"type": "loop", "size": 1}\'': (
                _UNTIL.format("scalarizr operations list --json | grep -q canceled")
                + "\nmount -t tmpfs -o size=1m tmpfs /var/lib/scalarizr/operations"
                + "\ncat /dev/zero > /var/lib/scalarizr/operations/full 2>/dev/null; true"
            ),
            "scalarizr operations (4)": _UNTIL.format(
                """scalarizr operations list --json | grep -q '"step": "long"'"""
            ),
            'scalarizr maintenance on --reason "replacing sdb"': "umount --lazy /var/lib/scalarizr/operations",
        },
    ),
    "docs/tls.md": Scene(
        _SYSTEMCTL,
        before={
            "scalarizr call system.load_average --url https://10.0.0.7:8011 --ca /etc/scalr/tls/fleet-ca.crt": (
                "systemctl stop scalarizr\n"
                r"""sed -i '/^\[tls\]/a listen = "0.0.0.0:8011"\ncertificate = "tls/agent.crt"\n"""
                """key = "tls/agent.key"' """
                "/etc/scalr/scalarizr.toml\nsystemctl start scalarizr"
            ),
            "from scalarizr.client import Client": "cp /etc/scalr/private.d/keys/default server.key",
            "scalarizr call system.uname --url https://10.0.0.7:8011 --ca fleet-ca.crt --certificate deploy.crt"
            " --certificate-key deploy.key": (
                "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=deploy"
                " -keyout deploy.key -out deploy.csr\n"
                "openssl x509 -req -in deploy.csr -CA fleet-ca.crt -CAkey fleet-ca.key -CAcreateserial -days 365"
                " -out deploy.crt"
            ),
        },
    ),
    "docs/client.md": Scene(INSTALLED + "cp /etc/scalr/private.d/keys/default server.key\n"),
    "docs/passwords.md": Scene(_POSTGRESQL + INSTALLED, answers=("another password",)),
    "docs/mongodb.md": Scene(_MONGODB + INSTALLED, answers=("one", "two")),
    "docs/backups.md": Scene(
        _POSTGRESQL + _SHOP + INSTALLED,
        before={
            "zstd -dc shop.dump.zst | runuser -u postgres -- pg_restore --create -d postgres": (
                f"cd /var/lib/scalarizr/backups/postgresql/*/\n{_SHOP_BACK}"
            ),
            "zstd -dc shop.dump.zst | runuser -u postgres -- pg_restore --data-only --table=orders -d shop": _EMPTIED,
        },
    ),
    "docs/replication.md": Scene(
        INSTALLED
        + """
scalarizr call storage.create 'storage_config={"type": "loop", "size": 1, "mpoint": "/srv/pg"}' mkfs=true mount=true
"""
        + _CLUSTER.replace("DIRECTORY", "-d /srv/pg/data"),
        variables="bundle = api.postgresql.create_databundle(async_=False)\n",
    ),
}
_BY_ANOTHER = (
    "tests/integration/test_postgresql_backup.py runs these two commands, out of this page, into an empty cluster"
)
# What is not run, and why: (page, first line of the command or program).
NOT_RUN: dict[tuple[str, str], str] = {
    ("README.md", "make test"): "this is part of it",
    ("docs/reverse-proxy.md", "apt-get install nginx git make python3 python3-venv"): "installs",
    ("docs/scripts.md", "scalarizr call system.reboot"): "tests/integration/test_small_vm_reboot.py does it",
    ("docs/changes.md", "make test-long"): "this is part of it",
    ("docs/changes.md", ".venv/bin/python -m pytest tests/faults/test_web_server_kills.py"): "this is beside it",
    ("docs/backups.md", "zstd -dc globals.sql.zst | runuser -u postgres -- psql -Xq -d postgres"): _BY_ANOTHER,
    (
        "docs/backups.md",
        'for part in *.dump.zst; do zstd -dc "$part" |'
        " runuser -u postgres -- pg_restore --clean --if-exists --create \\",
    ): _BY_ANOTHER,
}
# Pages whose sessions are not run, and why. Their calls are checked by `tests/unit/test_documentation.py`.
NOT_TRIED = {
    "CONTRIBUTING.md": "its commands clone this repository and run these tests",
    "docs/eph.md": "needs the device mapper: tests/integration/test_small_vm_storage.py",
    "docs/lvm.md": "needs the device mapper: tests/integration/test_small_vm_storage.py",
    "docs/raid.md": "needs the kernel's arrays: tests/integration/test_small_vm_storage.py",
    "docs/package.md": "installs and removes: tests/integration/test_small_vm_package.py",
    "docs/units.md": "needs systemd: tests/integration/test_small_vm_units.py",
    "docs/fuzzing.md": "runs for minutes",
    "docs/performance.md": "measures for minutes",
}
