#!/bin/sh
# Installs what makes and runs the small virtual machine of the long tests (tests/small_vm.py), where this is Debian and we
# are root; says what is missing else.
set -eu
wanted="debootstrap e2fsprogs qemu-system-x86 qemu-utils util-linux"
programs="debootstrap mke2fs qemu-system-x86_64 qemu-img setpriv"

missing=""
for program in $programs; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing what runs the small virtual machine ($missing is missing) …"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends $wanted; } >/dev/null ||
        echo "NOTE: apt could not install it. The tests in the virtual machine are left out." >&2
else
    echo "NOTE: not installed, and not installable without root:$missing. The tests in the virtual machine are left out." >&2
fi
