# mkwrite: see README.md. Targets for people: install, demo, check, test, lint, bench.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
PREFIX ?= /opt/mkwrite
# What the guests of tests and demo need beyond mkwrite itself.
RUN_PACKAGES := python3-bpfcc python3-venv
# What makes man pages of docs/, where it is to be had.
MANUAL_PACKAGES := lowdown
TEST_PACKAGES := bpfcc-tools bpftool bpftrace btrfs-progs busybox-static cachefilesd chromium clang-format dmsetup \
	e2fsprogs f2fs-tools fuse2fs gcc jq \
	iproute2 kmod libc6-dev lz4 nfs-common nfs-kernel-server nilfs-tools openssl prometheus prometheus-node-exporter \
	mmdebstrap qemu-system-x86 quota rpcbind strace systemd util-linux xfsprogs zstd
# Before Debian 13 it comes with QEMU.
VIRTIOFSD = $(shell apt-cache show virtiofsd >/dev/null 2>&1 && echo virtiofsd)
# What the demonstration needs: a virtual machine and programs that make filesystems; no daemon is among them.
DEMO_PACKAGES := btrfs-progs busybox-static e2fsprogs kmod qemu-system-x86 util-linux xfsprogs zstd
# What else the filesystems need that tests/filesystems sets up.
FILESYSTEM_PACKAGES := cifs-utils diod dosfstools exfatprogs fuse-overlayfs fuse3 gfs2-utils jfsutils \
	kafs-client keyutils mtd-utils ntfs-3g ocfs2-tools openafs-dbserver openafs-fileserver samba udftools
# What is measured beside it, and bench/profile's disassembler.
BENCH_PACKAGES := binutils bpfcc-tools bpftrace linux-perf

# What the programs are written in whose reports the docs show.
EXAMPLE_PACKAGES := apache2-bin default-jdk-headless postgresql

# What makes the root file systems of other releases.
RELEASE_PACKAGES := mmdebstrap
# What builds the image, and runs it as a pod.
DEPLOYMENT_PACKAGES := buildah crun golang-github-containers-common mmdebstrap

.PHONY: bench check fuzz help install uninstall demo test test-all test-deployment test-examples test-filesystems test-install test-releases lint format clean
help:
	@echo 'make install   put mkwrite on this machine: $(PREFIX), /usr/local/bin/mkwrite (root)'
	@echo 'make demo      trace a stock kernel in a virtual machine, nothing of this one (root; installs QEMU and mkfs)'
	@echo 'make check     lint, types, unit tests, the BPF programs in the verifier of this kernel (before each commit)'
	@echo 'make test      what each change is tested for: here, and in guests with four kernels (root; under 20 minutes)'
	@echo 'make test-all  everything that there is, and docs/support.md (root; hours: for the night)'
	@echo 'make test-filesystems  every filesystem, on one kernel: docs/support-matrix.md (root)'
	@echo 'make test-releases   the same with the BCC and Python of Debian 12, 13 and sid (root; ten minutes)'
	@echo 'make test-install  install, upgrade and uninstall, in root file systems of Debian 12 (root; two minutes)'
	@echo 'make test-deployment  the image, built and run as the pod of the DaemonSet (root)'
	@echo 'make test-examples  programs as they come that die of SIGBUS, and their reports: docs/commands/sigbus.md (root)'
	@echo 'make fuzz      parsers of what the kernel and users write, guided by coverage (a quarter of an hour)'
	@echo 'make bench     what tracing costs, beside other tracers; build/bench.json, too: docs/performance.md (root; an hour and a half)'
	@echo 'make lint      ruff, mypy, clang-format, and that imports go downwards'

# Installs the packages that are missing for a target, or says why it may not or cannot: TARGET, PACKAGES.
define packages
	@$(PYTHON) -I -B packaging/apt.py $(1) $(2)
endef

# Makes the venv, with one of the extras of pyproject.toml.
define venv
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(BIN)/pip install -q -e '.[$(1)]' || { \
		echo "mkwrite: pip could not get what is needed beside the distribution's packages." >&2; \
		echo "Mend what it says above (is this machine online?), then run make again." >&2; \
		exit 1; \
	}
endef

# What runs from here on needs Python as new as pyproject.toml says.
define python
	@least=$$(sed -n 's/^requires-python = ">=\(.*\)"$$/\1/p' pyproject.toml); \
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$$least'.split('.'))))" 2>/dev/null || { \
		echo "mkwrite: $(PYTHON) is not Python $$least or newer, but: $$($(PYTHON) --version 2>&1 | tail -n 1)" >&2; \
		echo "Install it (Debian 12, Ubuntu 24.04 and newer have it as python3), or name another: make ... PYTHON=PATH" >&2; \
		exit 1; \
	}
endef

install:
	$(call python)
	@$(PYTHON) -I -B packaging/install.py install $(PREFIX) $(RUN_PACKAGES) $(MANUAL_PACKAGES:%=--manual=%)

uninstall:
	$(call python)
	@$(PYTHON) -I -B packaging/install.py uninstall $(PREFIX)

$(VENV)/.ready: pyproject.toml
	$(call python)
	$(call packages,test,$(RUN_PACKAGES) $(TEST_PACKAGES) $(VIRTIOFSD))
	$(call venv,dev)
	@touch $@

$(VENV)/.demo: pyproject.toml
	$(call python)
	$(call packages,demo,$(RUN_PACKAGES) $(DEMO_PACKAGES))
	$(call venv,demo)
	@touch $@

# Rights first: nothing is fetched for who may not run it. What the tests need has all that it needs.
demo:
	@[ "$$(id -u)" = 0 ] || { \
		echo 'mkwrite: make demo needs root, since BCC makes BPF maps while it compiles.' >&2; \
		echo 'Run: sudo make demo' >&2; \
		exit 1; \
	}
	@[ -e $(VENV)/.ready ] || $(MAKE) -s $(VENV)/.demo
	@$(BIN)/python -m tests.demo

bench: $(VENV)/.ready
	$(call packages,bench,$(BENCH_PACKAGES))
	mkdir -p build
	$(BIN)/python bench/run --json build/bench.json

# Parts of it, and single tests: tests/run --help.
test: $(VENV)/.ready
	$(BIN)/python tests/run

test-all: $(VENV)/.ready
	$(BIN)/python tests/run --all; code=$$?; $(BIN)/python tests/support.py docs/support.md build/tests/log >build/support.md && mv build/support.md docs/support.md; exit $$code

# On other kernels: tests/filesystems/run SERIES ...
test-filesystems: $(VENV)/.ready
	$(call packages,$@,$(FILESYSTEM_PACKAGES))
	$(BIN)/python tests/filesystems/run

test-releases: $(VENV)/.ready
	$(call packages,$@,$(RELEASE_PACKAGES))
	$(BIN)/python tests/releases/run

test-install: $(VENV)/.ready
	$(call packages,$@,$(RELEASE_PACKAGES))
	$(BIN)/python -m pytest tests/install -q -p no:cacheprovider

test-deployment: $(VENV)/.ready
	$(call packages,$@,$(DEPLOYMENT_PACKAGES))
	$(BIN)/python tests/deployment/run

test-examples: $(VENV)/.ready
	$(call packages,$@,$(EXAMPLE_PACKAGES))
	$(BIN)/pip install -q -e '.[examples]'
	$(BIN)/python tests/examples/run

# What it finds lies here, and is replayed by tests/fuzz/run TARGET --replay FILE.
fuzz: $(VENV)/.ready
	$(BIN)/pip install -q -e '.[fuzz]'
	$(BIN)/python tests/fuzz/run --seconds 120

check: lint
	$(BIN)/python -m pytest tests/unit tests/observability -q -p no:cacheprovider --durations=20

lint: $(VENV)/.ready
	@mkdir -p build
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo --no-cache >build/imports 2>&1 || { cat build/imports; exit 1; }
	clang-format --dry-run -Werror $$(find bpf -name '*.[ch]') $$(find bench tests -name '*.c')

format: $(VENV)/.ready
	$(BIN)/ruff check -q --fix .
	$(BIN)/ruff format -q .
	clang-format -i $$(find bpf -name '*.[ch]') $$(find bench tests -name '*.c')

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
