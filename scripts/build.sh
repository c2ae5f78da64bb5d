#!/bin/bash
# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
# Builds the tree with Meson in a directory.
#
#   scripts/build.sh DIR [meson options]   set DIR up where needed, build everything
#   scripts/build.sh --setup DIR [...]     only set it up
#   scripts/build.sh --clean DIR           remove DIR, if Meson made it
#
# A DIR that was made from another tree, moved, or made by another version of
# Meson cannot be brought up to date: it is made again.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd -P)

die()
{
    echo "build: $*" >&2
    exit 1
}

# Did Meson make this directory?  Nothing else is ever removed.
is_meson_dir()
{
    [ -d "$1/meson-private" ] || [ -d "$1/meson-info" ]
}

is_usable()
{
    local info=$1/meson-info/meson-info.json

    [ -f "$1/build.ninja" ] && [ -f "$info" ] &&
        grep -qF "\"source\": \"$root\"" "$info" &&
        grep -qF "\"build\": \"$1\"" "$info" &&
        grep -qF "\"full\": \"$(meson --version)\"" "$info"
}

remove()
{
    [ -e "$1" ] || return 0
    is_meson_dir "$1" || [ -z "$(ls -A "$1")" ] || die "$1: not made by Meson; left alone"
    rm -rf -- "$1"
}

# Options given again to a directory that is there already are set anew.
setup()
{
    local dir=$1
    shift
    if is_usable "$dir"; then
        [ "$*" = "$(cat "$dir/.options" 2>/dev/null)" ] || meson configure "$dir" "$@"
    else
        ! is_meson_dir "$dir" || remove "$dir"
        meson setup "$dir" "$root" "$@"
    fi
    echo "$*" >"$dir/.options"
}

mode=build
case ${1-} in
--setup | --clean)
    mode=${1#--}
    shift
    ;;
esac
[ $# -ge 1 ] || die "which directory?"
dir=$(realpath -m -- "$1")
shift
[ "$dir" != "$root" ] || die "$dir: that is the source"

case $mode in
clean) remove "$dir" ;;
setup) setup "$dir" "$@" ;;
build)
    setup "$dir" "$@"
    ninja -C "$dir" ${JOBS:+-j"$JOBS"}
    ;;
esac
