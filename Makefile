# The front door. On a fresh machine with Rust, a C compiler and Python, any of these does its own set-up.
#
#   make build            the library, the header, and .venv/bin/python that imports the binding
#   make demo             500 tasks on one connection, a ten-second C call, and what the server saw of it
#   make test             everything; or test-rust, test-python, test-c, test-bindings (the other languages)
#   make lint             formatting, clippy, types, the header
#   make bench            us and the other clients side by side
#   make fuzz, make soak  for SECONDS=60
#   make loom, asan, tsan models of the ring; the Rust tests under sanitizers
#   make install          PREFIX=/usr/local DESTDIR=
SHELL   := bash
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
SECONDS ?= 60

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -1)
TARGET  := $(abspath $(or $(CARGO_TARGET_DIR),target))
STAGE   := $(CURDIR)/build/stage
PYTHON  := .venv/bin/python
RUN     := $(PYTHON) tests/run.py

# Languages whose scenarios and tests `make test-bindings` runs: suites of tests/run.py.
BINDINGS := ruby lua luajit perl node cpp

# Where bash, zsh and fish look for completions, in this order.
COMPLETION := share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d

# Where bindings find the library of this tree, also when it is built elsewhere.
export IOKERNEL_LIBRARY ?= $(TARGET)/release/libiokernel.so

.PHONY: build library header setup stage c cpp demo test test-rust test-python test-c test-bindings lint bench fuzz soak loom asan tsan install clean

build: setup library

library:
	cargo build --release --locked

# Writes include/iokernel.h; the same test fails elsewhere when the committed one is stale.
header:
	BLESS=1 cargo test --quiet --locked -p iokernel-header

setup:
	@tests/setup.sh

# An installed copy, for programs that must find us as a stranger would: by the header and pkg-config.
stage: library
	@$(MAKE) --no-print-directory -s install PREFIX=$(STAGE) DESTDIR=

c: stage
	cmake -S tests/c -B build/c -DCMAKE_PREFIX_PATH=$(STAGE) -DPython3_EXECUTABLE=$(abspath $(PYTHON))
	cmake --build build/c --parallel 2
	cmake -S tests/c -B build/c-asan -DCMAKE_PREFIX_PATH=$(STAGE) -DIOK_SANITIZE=address -DPython3_EXECUTABLE=$(abspath $(PYTHON))
	cmake --build build/c-asan --parallel 2

cpp: stage
	cmake -S bindings/cpp -B build/cpp -DCMAKE_PREFIX_PATH=$(STAGE) -DPython3_EXECUTABLE=$(abspath $(PYTHON))
	cmake --build build/cpp --parallel 2
	cmake -S bindings/cpp -B build/cpp-asan -DCMAKE_PREFIX_PATH=$(STAGE) -DIOK_SANITIZE=address -DPython3_EXECUTABLE=$(abspath $(PYTHON))
	cmake --build build/cpp-asan --parallel 2

demo: build
	$(PYTHON) examples/demo.py

test: build
	$(RUN) rust python c $(BINDINGS) table

test-rust: setup
	$(RUN) rust

test-python: build
	$(RUN) python

test-c: build
	$(RUN) c

test-bindings: build
	$(RUN) $(BINDINGS)

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --no-default-features --features redis --locked -- -D warnings
	cargo test --quiet --locked -p iokernel-header
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

bench: build
	@tests/setup.sh bench
	$(PYTHON) tests/bench/run.py

fuzz:
	tests/fuzz/run.sh $(SECONDS)

# The long variants of the tests that have one: a million requests cancelled at random, ten minutes of pushes that nobody
# reads, every byte cut, sixty seconds inside one C call, twenty failovers, ten thousand forks; then a bad network.
soak: build
	IOKERNEL_SOAK=1 cargo test --locked --test faults --test simulation
	IOKERNEL_SOAK=1 $(PYTHON) -m pytest -s $$(grep -l IOKERNEL_SOAK tests/live/*.py bindings/python/tests/*.py)
	$(PYTHON) tests/soak.py $(SECONDS)

# Every interleaving of the ring and the wake. Its own target folder: another cfg rebuilds everything.
loom:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom cargo test --release --locked --test loom

asan tsan:
	tests/sanitize.sh $@

install: library
	install -d $(DESTDIR)$(PREFIX)/include/iokernel $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 include/iokernel.h include/iokernel.hpp $(DESTDIR)$(PREFIX)/include/
	install -m 644 include/iokernel/*.hpp $(DESTDIR)$(PREFIX)/include/iokernel/
	install -m 755 $(TARGET)/release/libiokernel.so $(DESTDIR)$(LIBDIR)/libiokernel.so.$(VERSION)
	ln -sf libiokernel.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libiokernel.so.0
	ln -sf libiokernel.so.0 $(DESTDIR)$(LIBDIR)/libiokernel.so
	install -m 644 $(TARGET)/release/libiokernel.a $(DESTDIR)$(LIBDIR)/
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin $(COMPLETION))
	install -s -m 755 $(TARGET)/release/iokernel $(DESTDIR)$(PREFIX)/bin/
	set -- $(COMPLETION); for file in bash:$$1/iokernel zsh:$$2/_iokernel fish:$$3/iokernel.fish; do \
	  $(TARGET)/release/iokernel completion $${file%%:*} >$(DESTDIR)$(PREFIX)/$${file#*:} || exit 1; done
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' iokernel.pc.in \
	  >$(DESTDIR)$(LIBDIR)/pkgconfig/iokernel.pc

clean:
	cargo clean
	rm -rf build .venv .stamps
