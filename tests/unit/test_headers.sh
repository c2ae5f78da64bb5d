#!/bin/sh
# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
# Every compiler accepts the public headers without a warning: their static
# assertions hold and everything they declare can be used.
#
# usage: test_headers.sh INCLUDE_DIRECTORY PROGRAM.c
set -u

include=$1
program=$2
number=0
status=0

# try NAME COMPILER OPTION...: SKIP where that compiler is not installed
try() {
    name=$1
    number=$((number + 1))
    shift
    if ! command -v "$1" >/dev/null; then
        echo "ok $number # SKIP $name: no $1 here"
    elif out=$("$@" -Wall -Wextra -Werror -fsyntax-only -I"$include" "$program" 2>&1); then
        echo "ok $number - $name"
    else
        echo "$out" | sed 's/^/# /'
        echo "not ok $number - $name"
        status=1
    fi
}

# A layout that is not Windows' must not compile: the assertions look.
refuses_other_layout() {
    number=$((number + 1))
    if gcc -std=c11 -fpack-struct=1 -fsyntax-only -I"$include" "$program" 2>/dev/null; then
        echo "not ok $number - another layout is refused"
        status=1
    else
        echo "ok $number - another layout is refused"
    fi
}

echo 1..13
try 'gcc, C11' gcc -std=c11 -Wpedantic
try 'gcc, C99' gcc -std=c99
try 'gcc, WINDIVERTEXPORT defined by the program' gcc -std=gnu17 -DWINDIVERTEXPORT=
try 'clang, C11' clang -std=c11 -Wpedantic
try 'g++, C++11' g++ -x c++ -std=c++11 -Wpedantic
try 'g++, C++17' g++ -x c++ -std=c++17 -Wpedantic
try 'g++, C++98' g++ -x c++ -std=c++98
try 'clang++, C++17' clang++ -x c++ -std=c++17 -Wpedantic
try 'mingw, C11, dll imported' x86_64-w64-mingw32-gcc -std=c11
try 'mingw, C11, dll exported' x86_64-w64-mingw32-gcc -std=c11 -DWINDIVERT_BUILD
try 'mingw, C11, static library' x86_64-w64-mingw32-gcc -std=c11 -DWINDIVERT_STATIC
try 'mingw, C++17' x86_64-w64-mingw32-g++ -x c++ -std=c++17
refuses_other_layout
exit $status
