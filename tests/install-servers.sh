#!/bin/sh
# Installs the programs that the tests run, where this is Debian and we are root; says what is missing else.
set -eu
wanted="curl openssl nodejs php-cli tmux iproute2 util-linux nginx apache2 nftables iptables ufw strace patch
xfsprogs btrfs-progs e2fsprogs fdisk gcc libc6-dev postgresql postgresql-contrib prometheus"
programs="curl openssl node php tmux ip unshare nginx apache2 nft iptables ufw strace patch mkfs.xfs mkfs.btrfs mkfs.ext4 sfdisk cc pg_ctlcluster prometheus"
# Where systemd runs, installing firewalld would start it, and shut ports of this machine.
if [ ! -d /run/systemd/system ]; then
    wanted="$wanted firewalld dbus"
    programs="$programs firewalld dbus-daemon"
fi

missing=""
for program in $programs; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing the programs that the tests run ($missing is missing) …"
    export DEBIAN_FRONTEND=noninteractive
    # Debian starts what it installs: PostgreSQL's cluster "main" and two web servers on port 80. The tests start their
    # own; where the machine has no say in it of its own yet, a no is put there for as long as apt runs.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends $wanted; } >/dev/null ||
        echo "NOTE: apt could not install them. The tests that need them are left out." >&2
else
    echo "NOTE: not installed, and not installable without root:$missing. The tests that need them are left out." >&2
fi
