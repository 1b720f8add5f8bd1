#!/bin/sh
# A client of the founding envelope in shell, openssl and curl. Shares nothing with the agent.
#   call.sh http://HOST:8010/NAMESPACE KEYFILE METHOD PARAMS_JSON [ID_JSON]
# openssl takes keys as arguments only, so they can be seen in the process list while it runs: fine for trying
# things out and for tests, not on a machine with other users.
set -eu
url=$1 keyfile=$2 method=$3 params=$4 id=${5:-1}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tr -d ' \t\r\n' < "$keyfile" | openssl base64 -d -A > "$work/raw"
hex() { od -An -v -tx1 | tr -d ' \n'; }
raw=$(hex < "$work/raw")
key=$(head -c 24 "$work/raw" | hex)
iv=$(tail -c 8 "$work/raw" | hex)
mac() { openssl dgst -sha1 -mac HMAC -macopt "hexkey:$raw" -binary | openssl base64 -A; }

printf '{"params": %s, "method": "%s", "id": %s}' "$params" "$method" "$id" |
    openssl enc -des-ede3-cbc -K "$key" -iv "$iv" | openssl base64 -A > "$work/body"
date=$(LC_ALL=C date -u '+%a %d %b %Y %H:%M:%S UTC')
signature=$({ cat "$work/body"; printf %s "$date"; } | mac)

status=$(curl -sS -o "$work/answer" -D "$work/headers" -w '%{http_code}' --data-binary "@$work/body" \
    -H "Date: $date" -H "X-Signature: $signature" "$url")
if [ "$status" != 200 ]; then
    echo "HTTP $status: $(cat "$work/answer")" >&2
    exit 1
fi
header() { tr -d '\r' < "$work/headers" | sed -n "s/^$1: //Ip"; }
expected=$({ cat "$work/answer"; printf %s "$(header Date)"; } | mac)
[ "$expected" = "$(header X-Signature)" ] || { echo "the answer's signature does not match" >&2; exit 1; }
openssl base64 -d -A < "$work/answer" | openssl enc -d -des-ede3-cbc -K "$key" -iv "$iv"
echo
