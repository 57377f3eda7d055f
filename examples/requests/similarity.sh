#!/bin/sh
# The similarity of two face crops, with curl 7.76 or newer and jq: sh similarity.sh a.jpg b.jpg
set -eu
answer=$(mktemp)
trap 'rm "$answer"' EXIT
# -F sends a form. --retry waits as long as Retry-After says while the service is full (429) or restarts (503); the
# answer goes into a file, because in a pipe it would come after those that curl retried.
curl --silent --show-error --fail-with-body --retry 5 --output "$answer" -F "files=@$1" -F "files=@$2" \
    'http://localhost:5555/embed/batch?normalize=true' || { cat "$answer" >&2; exit 1; }
jq --raw-output '
    (.results[].problem | select(.) | "\(.code): \(.detail)\n" | halt_error(1)),
    if .results[0].recipe != .results[1].recipe then "Made in different ways: do not compare.\n" | halt_error(1)
    else [.results[].embedding] | transpose | map(.[0] * .[1]) | add | "similarity \(. * 1000 | round / 1000)" end' "$answer"
