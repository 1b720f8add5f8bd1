#!/bin/sh
# Builds dist/scalarizr_VERSION_ARCHITECTURE.deb: the agent in a virtual environment of its own, on the distribution's
# Python. Two builds of one commit give the same bytes. Needs Debian's python3-venv, binutils and dpkg-dev, and no root.
set -eu
umask 022
cd "$(dirname "$0")/../.."
python=${PYTHON_OF_DEBIAN:-/usr/bin/python3}
pip="$(pwd)/.venv/bin/python -m pip --disable-pip-version-check"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/scalarizr/__init__.py)
architecture=$(dpkg --print-architecture)
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
work=build/deb
root=$work/root
rm -rf "$work"
mkdir -p "$root/DEBIAN" dist

# The virtual environment, in a directory of its version: what still runs of an older one keeps its own.
release=$root/opt/scalarizr/releases/$version
"$python" -m venv --without-pip "$release"
$pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$work/wheel" .
$pip --python "$release/bin/python" install --quiet --no-compile --no-deps --require-hashes -r requirements/package.lock
$pip --python "$release/bin/python" install --quiet --no-compile --no-deps --no-index "$work"/wheel/scalarizr-*.whl
find "$release/bin" -mindepth 1 ! -name 'python*' ! -name scalarizr -delete
rm -f "$release"/bin/Activate.ps1 "$release"/lib/python3.*/site-packages/*.dist-info/direct_url.json
rm -rf "$release"/include "$release"/lib64
sed -i '/^command/d' "$release/pyvenv.cfg"
sed -i "1s|.*|#!/opt/scalarizr/releases/$version/bin/python|" "$release/bin/scalarizr"
# Where wheels were installed from, and hashes of files that were changed here, differ from place to place.
find "$release" -path '*.dist-info/RECORD' -delete
find "$release" -name '__pycache__' -prune -exec rm -rf {} +
# Debugging symbols are more than half of what the wheels weigh.
find "$release" -name '*.so*' -type f -exec chmod 644 {} + -exec strip --strip-unneeded {} +

install -D -m 644 packaging/systemd/scalarizr.service "$root/lib/systemd/system/scalarizr.service"
install -D -m 644 packaging/systemd/scalarizr-guard.service "$root/lib/systemd/system/scalarizr-guard.service"
sed -i 's|/opt/scalarizr/bin/|/opt/scalarizr/current/bin/|' "$root/lib/systemd/system/scalarizr-guard.service"
mkdir -p "$root/usr/bin" "$root/usr/share/doc/scalarizr" "$root/usr/share/lintian/overrides"
ln -s /opt/scalarizr/current/bin/scalarizr "$root/usr/bin/scalarizr"
cp packaging/deb/copyright "$root/usr/share/doc/scalarizr/copyright"
cp packaging/deb/lintian-overrides "$root/usr/share/lintian/overrides/scalarizr"
gzip -9n <CHANGELOG.md >"$root/usr/share/doc/scalarizr/CHANGELOG.md.gz"
gzip -9n >"$root/usr/share/doc/scalarizr/changelog.gz" <<END
scalarizr ($version) stable; urgency=medium

  * What changed stands in CHANGELOG.md.gz beside this file.

 -- $(git log -1 --format='%an <%ae>')  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
install -D -m 644 packaging/deb/scalarizr.8 "$root/usr/share/man/man8/scalarizr.8"
gzip -9n "$root/usr/share/man/man8/scalarizr.8"

for script in preinst postinst prerm postrm; do
    sed "s|@VERSION@|$version|g" "packaging/deb/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
done
cat >"$root/DEBIAN/control" <<END
Package: scalarizr
Version: $version
Architecture: $architecture
Section: admin
Priority: optional
Maintainer: $(git log -1 --format='%an <%ae>')
Depends: libc6, python3 (>= 3.$minor), python3 (<< 3.$((minor + 1)))
Recommends: chrony | time-daemon
Installed-Size: $(du -k -s --apparent-size "$root" | cut -f1)
Homepage: https://github.com/Scalr/scalarizr
Description: agent that manages this server through one signed API
 It runs as root on every server of a fleet, and lets a control plane, a script
 or a person manage nginx, Apache, PostgreSQL, MongoDB, volumes and the host
 through one signed and encrypted JSON-RPC API on port 8010.
 .
 Changes are validated before they touch anything, and are all or nothing.
END
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "dist/scalarizr_${version}_${architecture}.deb" >/dev/null
echo "dist/scalarizr_${version}_${architecture}.deb"
