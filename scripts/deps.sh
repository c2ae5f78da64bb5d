#!/bin/bash
# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
# Finds out which programs and libraries are missing, and installs them on
# Debian and Ubuntu.
#
#   scripts/deps.sh SET...         sets: build test demo style bench kernels fuzz
#   scripts/deps.sh --list SET...  only name the packages that are missing
#
# OPENDIVERT_DEPS=no: never install, only say what is missing.
set -euo pipefail

# set, how to see that it is there, Debian package
table='
build cmd:cc                     gcc
build hdr:linux/netfilter.h      linux-libc-dev
build hdr:stdio.h                libc6-dev
build cmd:meson                  meson
build cmd:ninja                  ninja-build
build cmd:pkg-config             pkg-config
build pc:libmnl                  libmnl-dev
build pc:libnftnl                libnftnl-dev
demo  cmd:ip                     iproute2
demo  cmd:unshare                util-linux
demo  cmd:nsenter                util-linux
demo  cmd:python3                python3
demo  cmd:curl                   curl
style cmd:clang-format           clang-format
style cmd:python3                python3
test  cmd:clang                  clang
test  cmd:clang-format           clang-format
test  cmd:python3                python3
test  cmd:g++                    g++
test  cmd:x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
test  cmd:x86_64-w64-mingw32-g++ g++-mingw-w64-x86-64
test  pc:cmocka                  libcmocka-dev
test  cmd:ip                     iproute2
test  cmd:nft                    nftables
test  cmd:tcpdump                tcpdump
test  cmd:setarch                util-linux
test  pc:libpcap                 libpcap-dev
bench cmd:python3                python3
bench cmd:ip                     iproute2
bench cmd:nft                    nftables
bench pc:libpcap                 libpcap-dev
bench pc:libnetfilter_queue      libnetfilter-queue-dev
kernels cmd:qemu-system-x86_64   qemu-system-x86
kernels cmd:busybox              busybox-static
kernels cmd:cpio                 cpio
kernels cmd:depmod               kmod
fuzz  cmd:clang                  clang
fuzz  fuzzer:clang               libclang-rt-dev
'

have()
{
    local kind=${1%%:*} name=${1#*:}

    case $kind in
    cmd) command -v "$name" >/dev/null || [ -x "/usr/sbin/$name" ] ;;
    pc) pkg-config --exists "$name" 2>/dev/null ;;
    hdr) compgen -G "/usr/include/$name" >/dev/null || compgen -G "/usr/include/*/$name" >/dev/null ;;
    fuzzer) compgen -G "$("$name" -print-resource-dir 2>/dev/null)/lib/*/libclang_rt.fuzzer*.a" >/dev/null ;;
    esac
}

missing()
{
    local want=" $* " set check package

    while read -r set check package; do
        [[ -n $set && $want == *" $set "* ]] || continue
        have "$check" || echo "$package"
    done <<<"$table" | sort -u
}

die()
{
    printf 'deps: %s\n' "$@" >&2
    exit 1
}

# The words in front of apt-get: none for root, sudo for others.
become_root()
{
    if [ "$(id -u)" -eq 0 ]; then
        echo env
    elif command -v sudo >/dev/null; then
        echo sudo
    fi
}

# apt-get's own lists may be too old or not there at all: a second try after an update.  That one leaves out what this
# release has no package for: there it may be part of another.
install()
{
    local as=$1 package known=()
    shift
    local apt=("$as" DEBIAN_FRONTEND=noninteractive apt-get -qq)

    ! "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >&2 || return 0
    "${apt[@]}" update </dev/null >&2
    for package; do
        ! apt-cache show "$package" >/dev/null 2>&1 || known+=("$package")
    done
    "${apt[@]}" install -y --no-install-recommends "${known[@]}" </dev/null >&2
}

confirm()
{
    local answer

    [ -t 0 ] && [ -t 2 ] || return 0
    read -rp "deps: install them now? [Y/n] " answer
    [[ ! $answer =~ ^[nN] ]]
}

list=
if [ "${1-}" = --list ]; then
    list=yes
    shift
fi
[ $# -ge 1 ] || die "which set? build test demo style bench fuzz"
for set in "$@"; do
    grep -q "^$set " <<<"$table" || die "$set: no such set"
done

mapfile -t packages < <(missing "$@")
if [ -n "$list" ]; then
    [ ${#packages[@]} -eq 0 ] || printf '%s\n' "${packages[@]}"
    exit 0
fi
[ ${#packages[@]} -gt 0 ] || exit 0

command="apt-get install ${packages[*]}"
echo "deps: missing for '$*': ${packages[*]}" >&2
[ "${OPENDIVERT_DEPS-}" != no ] || die "to install them: $command"
command -v apt-get >/dev/null || die "this is not Debian or Ubuntu; install what these packages hold by hand"
as=$(become_root)
[ -n "$as" ] || die "not root, and there is no sudo; as root: $command"
echo "deps: they come from this system's own package source: $command" >&2
confirm || die "not installed; to do it by hand: $command"
install "$as" "${packages[@]}" || die "apt-get failed; by hand: $command"
mapfile -t packages < <(missing "$@")
[ ${#packages[@]} -eq 0 ] || die "still missing after the installation: ${packages[*]}"
