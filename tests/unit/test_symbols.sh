#!/bin/sh
# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
# The shared library exports what the two public headers declare, all of it
# and nothing else.
#
# usage: test_symbols.sh LIBRARY HEADER...
set -u
export LC_ALL=C

library=$1
shift
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# Names that follow WINDIVERTEXPORT up to their parenthesis; comments and preprocessor lines are not declarations.
declared() {
    sed -e 's,/\*.*\*/,,' -e '/^ *\/\*/,/\*\//d' -e '/^ *#/d' "$@" | tr '\n' ' ' |
        grep -o 'WINDIVERTEXPORT [^(;]*(' | sed -e 's/ *($//' -e 's/.*[ *]//' | sort -u
}

# Versioned names without their version; the version itself is an absolute symbol and no function.
exported() {
    nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u
}

echo 1..4
status=0
result() { # number, name, lines that should not be there
    if [ -z "$3" ]; then
        echo "ok $1 - $2"
    else
        echo "$3" | sed 's/^/# /'
        echo "not ok $1 - $2"
        status=1
    fi
}

[ -f "$library" ] || {
    echo "Bail out! there is no $library"
    exit 1
}
declared "$@" >"$tmp/declared"
exported "$library" >"$tmp/exported"

count=$(grep -c '' "$tmp/declared")
few=
{ [ "$count" -ge 36 ] && grep -qx WinDivertOpen "$tmp/declared" && grep -qx WinDivertExtGetLastErrorText "$tmp/declared"; } ||
    few="only $count names found in $*"
result 1 'the headers are understood' "$few"
result 2 'all that is declared is exported' "$(comm -23 "$tmp/declared" "$tmp/exported")"
result 3 'nothing else is exported' "$(comm -13 "$tmp/declared" "$tmp/exported")"
result 4 'every symbol has the version WINDIVERT_2.2' \
    "$(nm -D --defined-only "$library" | awk '$2 != "A"' | grep -v '@@WINDIVERT_2\.2$')"
exit $status
