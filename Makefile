# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
# A small front for Meson: each target fetches what it needs and builds first.
#
#   make BUILD=dir ...     another build directory
#   make fuzz SECONDS=n    how long to fuzz, all targets together
#   make test TEST=name    only the stages named (see tests/run --help)
#   make test-kernels KERNELS=6.1,6.12 TESTS='divert* sniff*'    on Debian's kernels, under qemu

BUILD   ?= build
SECONDS ?= 60
PREFIX  ?= /usr/local

.DEFAULT_GOAL := all
.PHONY: all help demo test test-kernels bench check-style fuzz install clean

all:
	@scripts/deps.sh build
	@scripts/build.sh '$(BUILD)' --prefix='$(PREFIX)'

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'targets: all demo test test-kernels bench check-style fuzz install clean'

demo:
	@scripts/deps.sh build demo
	@scripts/build.sh '$(BUILD)' --prefix='$(PREFIX)'
	@scripts/demo.sh '$(BUILD)'

test:
	@scripts/deps.sh build test demo
	@tests/run --build '$(BUILD)' $(TEST)

test-kernels:
	@scripts/deps.sh build test kernels
	@scripts/build.sh '$(BUILD)' --prefix='$(PREFIX)'
	@scripts/test-kernels --build '$(BUILD)' $(if $(KERNELS),--kernels $(KERNELS)) $(foreach t,$(TESTS),'$(t)')

bench:
	@scripts/deps.sh build bench
	@scripts/build.sh '$(BUILD)' --prefix='$(PREFIX)'
	@tests/bench/run '$(BUILD)'

check-style:
	@scripts/deps.sh style
	@scripts/check-style

fuzz:
	@scripts/deps.sh build fuzz
	@tests/fuzz/run '$(BUILD)/fuzz' '$(SECONDS)'

install: all
	meson install -C '$(BUILD)' --no-rebuild $(if $(DESTDIR),--destdir '$(abspath $(DESTDIR))')

clean:
	@scripts/build.sh --clean '$(BUILD)'
