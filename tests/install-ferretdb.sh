#!/bin/sh
# Builds FerretDB, which stands in for a mongod in the tests, into the user's cache, once: where no mongod is on PATH and Go
# is installed. Says what is left out else, and never fails for it. It takes about a minute and a half on two cores.
set -u
version=1.24.0
module=github.com/FerretDB/FerretDB
cache="${XDG_CACHE_HOME:-$HOME/.cache}/scalarizr-tests"
program="$cache/ferretdb-$version"

command -v mongod >/dev/null 2>&1 && exit 0
[ -x "$program" ] && exit 0
if ! command -v go >/dev/null 2>&1; then
    echo "NOTE: there is no mongod, and no Go to build FerretDB with. The tests that need a MongoDB server are LEFT OUT." >&2
    exit 0
fi

echo "Building FerretDB $version, on which the MongoDB tests run, into $cache (once) …"
left_out="The tests that need a MongoDB server are LEFT OUT."
if ! mkdir -p "$cache" || ! work=$(mktemp -d "$cache/ferretdb-build.XXXXXX"); then
    echo "NOTE: $cache cannot be written. $left_out" >&2
    exit 0
fi
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
build() {
    # All that Go keeps goes away with the directory: the program alone stays.
    export GOTOOLCHAIN=local GOFLAGS="-buildvcs=false -modcacherw" GOWORK=off
    export GOCACHE="$work/cache" GOPATH="$work/go" GOMODCACHE="$work/go/pkg/mod"
    cd "$work" || return 1
    # Without -json it says on standard error what went wrong.
    go mod download "$module@v$version" || return 1
    source=$(go mod download -json "$module@v$version" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p') || return 1
    [ -d "$source" ] || return 1
    # Its own build writes the version into a file that the module does not carry, and without which it does not start.
    cp -R "$source" source && chmod -R u+w source && echo "v$version" >source/build/version/version.txt || return 1
    cd source && go build -trimpath -tags ferretdb_no_postgresql -ldflags "-s -w" -o "$work/ferretdb" ./cmd/ferretdb
}
if build >"$work/log" 2>&1 && mv "$work/ferretdb" "$program"; then
    exit 0
fi
tail -n 5 "$work/log" >&2
echo "NOTE: FerretDB could not be built (above). $left_out" >&2
exit 0
