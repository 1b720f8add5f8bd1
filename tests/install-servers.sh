#!/bin/sh
# Installs the programs that the tests run, where this is Debian and we are root; says what is missing else.
set -eu
wanted="curl openssl nodejs php-cli tmux iproute2 util-linux"
programs="curl openssl node php tmux ip unshare"

missing=""
for program in $programs; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing the programs that the tests run ($missing is missing) …"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends $wanted; } >/dev/null ||
        echo "NOTE: apt could not install them. The tests that need them are left out." >&2
else
    echo "NOTE: not installed, and not installable without root:$missing. The tests that need them are left out." >&2
fi
