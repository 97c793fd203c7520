# xrun: build, test, measure. `make help` lists what there is.
#
# On x86_64 xrun is cross-built for AArch64 and run under qemu-aarch64; on aarch64 everything is native.
# Debian's own Rust (packages rustc-web and cargo-web) builds both sides, so no other toolchain is needed.

HOST   := $(shell uname -m)
TARGET := aarch64-unknown-linux-gnu
# CPU models that the AArch64 suites run on: v8.0 without LSE, v8.2, v8.4, and all that qemu knows.
CPUS   ?= cortex-a72 neoverse-n1 neoverse-v1 max
CPU    ?= neoverse-n1
# The model for AArch64 programs that the kernel starts through binfmt_misc.
export QEMU_CPU ?= $(CPU)
export CARGO_TARGET_DIR ?= $(CURDIR)/target

# Debian's cargo calls the rustc, rustfmt and clippy-driver beside it, whatever else is in PATH.
CARGO  ?= PATH=/usr/bin:$$PATH /usr/bin/cargo
XRUN   := $(CARGO_TARGET_DIR)/$(TARGET)/release/xrun
ifeq ($(HOST),x86_64)
QEMU   := qemu-aarch64-static -cpu $(CPU)
else
QEMU   :=
endif
export XRUN

.PHONY: all build setup roots data demo test test-vm test-programs bench bench-translate fuzz fuzz-bytes clean help

all: build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

setup: ## install what building and testing needs (says what first)
	@scripts/setup.sh

build: setup ## the release binary: one static AArch64 file
	@echo "build: xrun for $(TARGET)"
	@$(CARGO) build --release --target $(TARGET) --bin xrun
	@scripts/check-binary.sh $(XRUN)

roots: setup ## unpack the Debian programs that tests and benchmarks run, under target/roots
	@scripts/roots.sh

data: roots ## more than 20 MB of real text, under target/data
	@scripts/data.sh

demo: build data ## Debian's amd64 pbzip2 under xrun on real data, beside qemu-x86_64
	@scripts/demo.sh "$(QEMU)" $(XRUN)

test: ## everything CI runs
	@scripts/test.sh

test-vm: build ## a real arm64 kernel in qemu-system-aarch64 with xrun in binfmt_misc, an amd64 Debian root; needs root
	@scripts/test-vm.sh $(ROUNDS)

test-programs: build ## larger programs (git, gcc, node, java, postgres, ...) under xrun, compared with native; CASES="git gcc"; needs root
	@scripts/test-programs.sh $(CASES)

bench: build data ## instructions executed, as ratios to native; INSN=DIR, ARGS="--help" for more
	@$(CARGO) bench --profile dev --bench ratio -- $(if $(INSN),--insn $(INSN)) --cpu $(CPU) $(ARGS)

bench-translate: roots ## how long translation takes, per guest instruction
	@$(CARGO) bench --bench translate

fuzz: setup ## invented programs, on this x86_64 processor and translated, compared; TIME=seconds
	@scripts/fuzz.sh $(or $(TIME),60) $(ARGS)

fuzz-bytes: setup ## any bytes into the translator, damaged ELF files into the loader: no panic, bounded time and memory; TIME=seconds
	@scripts/fuzz-bytes.sh $(or $(TIME),60)

clean: ## remove what was built (not the downloaded packages)
	@rm -rf $(CARGO_TARGET_DIR)/debug $(CARGO_TARGET_DIR)/release $(CARGO_TARGET_DIR)/$(TARGET) target/bench target/tests target/data
