#!/bin/sh
# Builds dist/scalarizr_VERSION_ARCHITECTURE.deb: the agent in a virtual environment of its own, on the distribution's
# Python. Two builds of one commit give the same bytes. Needs Debian's python3-venv, libpq5, binutils and dpkg-dev, and no
# root. Without git, MAINTAINER and SOURCE_DATE_EPOCH have to be in the environment.
set -eu
umask 022
cd "$(dirname "$0")/../.."
python=${PYTHON_OF_DEBIAN:-/usr/bin/python3}
tools="$(pwd)/.venv/bin"
pip="$tools/python -m pip --disable-pip-version-check"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/scalarizr/__init__.py)
architecture=$(dpkg --print-architecture)
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
maintainer=${MAINTAINER:-$(git log -1 --format='%an <%ae>')}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
export PYTHONDONTWRITEBYTECODE=1
unset PYTHONPATH PYTHONHOME
work=build/deb
root=$work/root
rm -rf "$work"
mkdir -p "$root/DEBIAN" dist

# The virtual environment, in a directory of its version: what still runs of an older one keeps its own (postinst).
release=$root/opt/scalarizr/releases/$version
"$python" -m venv --without-pip "$release"
$pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$work/wheel" .
$pip --python "$release/bin/python" install --quiet --no-compile --no-deps --require-hashes -r requirements/package.lock
$pip --python "$release/bin/python" install --quiet --no-compile --no-deps --no-index "$work"/wheel/scalarizr-*.whl
libraries=$release/lib/python3.$minor/site-packages
# What the environment is made of, as long as it has its metadata whole.
mkdir -p "$root/usr/share/doc/scalarizr"
sed "s|^dynamic = .*|version = \"$version\"|" pyproject.toml >"$work/pyproject.toml"
"$tools/cyclonedx-py" environment --output-reproducible --pyproject "$work/pyproject.toml" --output-format JSON \
    --output-file "$root/usr/share/doc/scalarizr/sbom.cdx.json" "$release/bin/python"

find "$release/bin" -mindepth 1 ! -name 'python*' -delete
# What pip would write depends on how long the name of this directory is.
cat >"$release/bin/scalarizr" <<END
#!/opt/scalarizr/releases/$version/bin/python
import sys
from scalarizr.cli.main import main
sys.exit(main())
END
chmod 755 "$release/bin/scalarizr"
rm -rf "$release/include" "$release/lib64"
sed -i '/^command/d' "$release/pyvenv.cfg"
# Where wheels were installed from, and hashes of files that were changed here, differ from place to place.
find "$release" \( -path '*.dist-info/RECORD' -o -path '*.dist-info/direct_url.json' \) -delete
# What type checkers and compilers read, and zstandard's second compiled half, which is for other Pythons than Debian's.
find "$libraries" -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' \) -delete
rm -f "$libraries"/zstandard/_cffi*.so "$libraries/zstandard/backend_cffi.py"
find "$release" -name '__pycache__' -prune -exec rm -rf {} +
# Debugging symbols are more than half of what the wheels weigh.
find "$release" -name '*.so*' -type f -exec chmod 644 {} + -exec strip --strip-unneeded {} +
# The SDKs of the extras are looked for where they outlive an upgrade, after everything that the package brings.
echo /opt/scalarizr/extras >"$libraries/scalarizr-extras.pth"
# Whatever the agent imports is there, or this ends the build.
"$release/bin/python" -I packaging/deb/imported_modules.py >"$work/imported"
mv "$work/imported" "$release/imported-modules"

units=""
for unit in packaging/systemd/*.service packaging/systemd/*.socket; do
    [ -e "$unit" ] || continue
    name=$(basename "$unit")
    install -D -m 644 "$unit" "$root/lib/systemd/system/$name"
    sed -i 's|/opt/scalarizr/bin/|/opt/scalarizr/current/bin/|' "$root/lib/systemd/system/$name"
    units="$units $name"
done
mkdir -p "$root/usr/bin" "$root/usr/share/lintian/overrides"
ln -s /opt/scalarizr/current/bin/scalarizr "$root/usr/bin/scalarizr"
install -m 644 packaging/deb/copyright "$root/usr/share/doc/scalarizr/copyright"
install -m 644 docs/licences.md "$root/usr/share/doc/scalarizr/licences.md"
install -m 644 packaging/deb/lintian-overrides "$root/usr/share/lintian/overrides/scalarizr"
for lock in requirements/extra-*.lock; do
    install -D -m 644 "$lock" "$root/usr/share/scalarizr/$(basename "$lock")"
done
gzip -9n <CHANGELOG.md >"$root/usr/share/doc/scalarizr/CHANGELOG.md.gz"
gzip -9n >"$root/usr/share/doc/scalarizr/changelog.gz" <<END
scalarizr ($version) stable; urgency=medium

  * What changed stands in CHANGELOG.md.gz beside this file.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
install -D -m 644 packaging/deb/scalarizr.8 "$root/usr/share/man/man8/scalarizr.8"
gzip -9n "$root/usr/share/man/man8/scalarizr.8"

for script in preinst postinst prerm postrm; do
    sed "s|@VERSION@|$version|g; s|@UNITS@|${units# }|g" "packaging/deb/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
done
# As dpkg-gencontrol counts: each file in whole KiB, 1 KiB for anything else, whatever the file system here.
size=$(find "$root" -mindepth 1 -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' -o -printf '1\n' |
    awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
cat >"$root/DEBIAN/control" <<END
Package: scalarizr
Version: $version
Architecture: $architecture
Section: admin
Priority: optional
Maintainer: $maintainer
Depends: libc6 (>= 2.34), libgcc-s1, libpq5, python3 (>= 3.$minor), python3 (<< 3.$((minor + 1)))
Recommends: chrony | time-daemon
Suggests: python3-pip, nginx, apache2, postgresql, lvm2, mdadm, xfsprogs, btrfs-progs
Installed-Size: $size
Homepage: https://github.com/Scalr/scalarizr
Description: agent that manages this server through one signed API
 It runs as root on every server of a fleet, and lets a control plane, a script
 or a person manage nginx, Apache, PostgreSQL, MongoDB, volumes and the host
 through one signed and encrypted JSON-RPC API on port 8010.
 .
 Changes are validated before they touch anything, and are all or nothing.
 .
 The SDKs of clouds, for volumes of EC2, GCE, OpenStack and CloudStack, are
 extras: /usr/share/scalarizr has a lock for each, pip installs it.
END
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# One thread: with several, xz cuts the data elsewhere.
dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$root" "dist/scalarizr_${version}_${architecture}.deb" >/dev/null
echo "dist/scalarizr_${version}_${architecture}.deb"
