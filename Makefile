# One line per target in `make help`. Downloads and build outputs that survive a clone live in $(CACHE).
CACHE   ?= $(HOME)/.cache/skytorch-dev
PYTHON3 ?= python3
VENV    := $(CACHE)/venv
PY      := $(VENV)/bin/python
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PYTHONPATH := $(CURDIR)/python
export SKYTORCH_ORACLE_PROBE := $(CURDIR)/build/cmake/tests/oracle/_oracle_probe.so
STAMP   := $(CACHE)/venv-$(shell sha256sum requirements-dev.txt | cut -c1-16).stamp
WIRE    := python/skytorch/_wire.abi3.so
# maturin writes one of its own for each build, and whatever was compiled with another is compiled anew.
export PYO3_CONFIG_FILE := $(abspath $(CACHE))/pyo3.txt
CXX_SOURCES := cmake python/skytorch/backend/csrc server tests/cpp
CXX_FILES = $(shell git ls-files -co --exclude-standard $(CXX_SOURCES) | grep -E '\.(h|cpp)$$')
# Comes with torch, and is loaded before us.
TORCH_LIBS := 'libtorch*' 'libc10*' 'libcudart.so.*'
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := all
.PHONY: all help tools env build native wire operator devcluster control-plane torches check test test-full test-libraries test-matrix test-rust test-cpp test-kubernetes fuzz fuzz-sessions sanitize loom faults soak soak-programs bench lint format generate demo notice wheel wheel-check wheel-release clean

all: lint test ## what CI does: lint, then every test

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

tools: ## check that python 3.11+, cargo, g++ and cmake are there; say how to get what is not
	@$(PYTHON3) .ci/tools.py

env: $(STAMP) ## the Python environment in the cache (torch and what builds and tests need)
$(STAMP): | tools
	@mkdir -p $(CACHE)
	@echo "setting up the Python environment in $(CACHE) (torch is a large download: a few minutes the first time)"
	@test -x $(PY) || $(PYTHON3) -m venv $(VENV)
	@$(PY) -m pip install --disable-pip-version-check --no-compile -r requirements-dev.txt
	@touch $@

$(PYO3_CONFIG_FILE): .ci/pyo3.txt
	@mkdir -p $(CACHE)
	@cmp -s $< $@ || cp $< $@
	@touch $@

build: wire native ## the Rust module and the C++ libraries, in place

wire: $(STAMP) $(PYO3_CONFIG_FILE) ## skytorch._wire (Rust)
	@cargo build --release --locked -p skytorch-py --features pyo3/extension-module
	@cmp -s $(CARGO_TARGET_DIR)/release/lib_wire.so $(WIRE) || install -m 755 $(CARGO_TARGET_DIR)/release/lib_wire.so $(WIRE)

native: $(STAMP) ## the device and the executor (C++), from the cache when nothing changed
	@$(PY) .ci/build_native.py --cache $(CACHE)/native

operator: | tools ## the Kubernetes operator (Rust)
	@cargo build --release --locked -p skytorch-operator

devcluster: build operator ## a real Kubernetes control plane on this machine with the operator in it, until Ctrl-C
	@$(PY) tests/devcluster up

# Threads of torch that wait by spinning would take the cores from the test beside them.
check test test-kubernetes test-matrix: export OMP_WAIT_POLICY := passive
# Most of a test's time is processes that start, and some of it is waits, so there is one worker more than cores.
# What measures time is marked `alone` and runs after the others.
WORKERS := -n $(shell echo $$(($$(nproc) + 1))) --dist worksteal --maxprocesses $(or $(JOBS),4)
check: build ## the fast tests, on JOBS=4 cores at most
	@$(PY) -m pytest -q $(WORKERS) -m "not slow and not alone" --ignore tests/kubernetes tests

test: build test-rust test-cpp ## every test: Rust, C++, Python, and those against a real Kubernetes control plane
	@$(PY) -m pytest -q $(WORKERS) -m "not alone" --ignore tests/kubernetes tests
	@$(PY) -m pytest -q -m alone --ignore tests/kubernetes tests
	@$(MAKE) test-kubernetes

test-full: build ## the rest of op_db (every dtype and sample) and 10,000 random programs: hours
	@PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests $(PY) tests/ops --jobs $(or $(JOBS),2) $(OPS_ARGS)
	@$(MAKE) soak-programs

# A test that hangs ends the run, and cargo names it.
test-rust: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := timeout -k 5 900
test-rust: $(STAMP) ## unit, property and vector tests of the wire, unit tests of the operator
	@cargo test --release --locked -p skytorch-wire -- --include-ignored
	@cargo test --release --locked -p skytorch-operator

# Programs of every kind, the oracle, the device, starting and importing: what a change of torch breaks first.
MATRIX_TESTS ?= tests/cpp tests/torch/test_other_torch.py tests/torch/test_autograd.py tests/torch/test_copies.py \
	tests/torch/test_data_dependent.py tests/torch/test_factories_rng.py tests/torch/test_failures.py \
	tests/torch/test_nn.py tests/torch/test_amp.py tests/ops/test_random_programs.py tests/torch/test_session.py \
	tests/torch/test_views.py tests/python/test_import.py
MATRIX := $(PY) .ci/matrix.py
MATRIX_ARGS = --cache $(CACHE) --torch "$(TORCH)"
test-matrix: wire ## MATRIX_TESTS on every torch from 2.11 to 2.15 (TORCH="2.11 2.15": on these), in environments that it makes
	@$(MATRIX) test $(MATRIX_ARGS) $(if $(TESTED),--tested) -- -q $(WORKERS) -m "not slow and not alone" $(MATRIX_TESTS)

torches: $(STAMP) ## the environments of TORCH, which test-matrix makes too: large downloads
	@$(PY) .ci/torch_env.py $(MATRIX_ARGS)

test-cpp: native ## C++ tests of the executor and the oracle
	@build/cmake/tests/server/server_tests

control-plane: | tools ## the programs of the control plane, and helm, from Go modules into the cache
	@$(PYTHON3) tests/devcluster build
	@$(PYTHON3) tests/deploy/helm.py

CLUSTER := $(PY) tests/devcluster run --
# Each of the three workers has a control plane of its own, since some tests stop parts of it.
test-kubernetes: build operator control-plane ## the tests against a real control plane (network namespaces, Go)
	@$(PY) -m pytest -q -m "not alone" --dist loadfile --tx '3*popen//python=$(CLUSTER) $(PY)' tests/kubernetes
	@$(CLUSTER) $(PY) -m pytest -q -m alone tests/kubernetes

# An environment on top of the checkout's, so that neither sees the other's packages changed.
LIBRARIES       := $(CACHE)/libraries
LIBRARIES_STAMP := $(CACHE)/libraries-$(shell sha256sum tests/libraries/requirements.txt | cut -c1-16).stamp
$(LIBRARIES_STAMP): $(STAMP)
	@test -x $(LIBRARIES)/bin/python || $(PYTHON3) -m venv $(LIBRARIES)
	@$(PY) -c 'import site; print(site.getsitepackages()[0])' > "$$($(LIBRARIES)/bin/python -c 'import site; print(site.getsitepackages()[0])')/checkout.pth"
	@$(LIBRARIES)/bin/python -m pip install --disable-pip-version-check -q -r tests/libraries/requirements.txt
	@touch $@

test-libraries: build $(LIBRARIES_STAMP) ## transformers, accelerate, PEFT, TRL, Lightning, torchvision, timm, ... on sky beside the CPU
	@$(LIBRARIES)/bin/python -m pytest -q tests/libraries

fuzz fuzz-sessions: export SECONDS := $(SECONDS)
fuzz fuzz-sessions: export SESSIONS := $(SESSIONS)
fuzz fuzz-sessions: export MESSAGES := $(MESSAGES)
fuzz fuzz-sessions: export SEED := $(SEED)
fuzz fuzz-sessions: export CASE := $(CASE)
# As fast as a release, and arithmetic of ours that wraps is a crash; what we depend on is the release's.
FUZZ := --release --locked -p skytorch-wire --features fuzz \
	--config profile.release.package.skytorch-wire.debug-assertions=true \
	--config profile.release.package.skytorch-wire.overflow-checks=true
fuzz: ## mutated messages against every decoder: SECONDS=60, or MESSAGES=10000000; SEED= and CASE= repeat one
	@cargo run -q $(FUZZ) --example fuzz

faults: build ## every fault at every message of a session, and the table (FAULTS_ARGS="--every 10" for a part)
	@PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests $(PY) tests/faults $(FAULTS_ARGS)

fuzz-sessions: build ## hostile sessions against a server with ASan and UBSan: SECONDS=60 or SESSIONS=100000; SEED= and CASE=
	@$(PY) .ci/build_native.py --cache $(CACHE)/native --sanitize address
	@cargo build -q $(FUZZ) --example fuzz_sessions
	@$(PY) tests/fuzz/sessions.py --fuzzer $(CARGO_TARGET_DIR)/release/examples/fuzz_sessions

sanitize: build ## the C++ parts under ASan, UBSan and TSan: the executor's tests, torch programs, the device
	@$(PY) .ci/build_native.py --cache $(CACHE)/native --sanitize address
	@$(PY) .ci/build_native.py --cache $(CACHE)/native --sanitize thread
	@$(PY) tests/fuzz/sanitize.py

loom: $(STAMP) ## the lock-free parts of the wire in every order of their threads
	@LOOM_MAX_PREEMPTIONS=$(or $(PREEMPTIONS),3) cargo test -q --release --locked -p skytorch-loom

soak: build ## one session trains for MINUTES=30 while its connections are cut at random
	@PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests $(PY) tests/faults/soak.py --minutes $(or $(MINUTES),30)

soak-programs: build ## random programs on sky against the CPU, bit by bit: PROGRAMS=10000; SEED= repeats one
	@$(PY) tests/ops/soak_programs.py --programs $(or $(PROGRAMS),10000) --seed $(or $(SEED),0) --jobs $(or $(JOBS),2)

bench: build ## figures as ratios against local torch and raw TCP in the same run
	@$(PY) -m benches $(BENCH_ARGS)

lint: build ## ruff, mypy --strict, cargo fmt, clippy, clang-format, gofmt, generated files, dependency direction
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@cargo fmt --check
	@cargo clippy --release --locked --workspace --all-targets --features skytorch-wire/fuzz -- -D warnings
	@$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)
	@test -z "$$(gofmt -l tests/devcluster)" || { echo "gofmt: make format"; gofmt -d tests/devcluster; exit 1; }
	@$(PY) .ci/dependencies.py

format: $(STAMP) ## format everything
	@$(PY) -m ruff check --fix -q . ; $(PY) -m ruff format -q .
	@cargo fmt
	@$(VENV)/bin/clang-format -i $(CXX_FILES)
	@gofmt -w tests/devcluster

generate: $(STAMP) ## regenerate the C header, the proto code and the CRD (all committed)
	@SKYTORCH_GENERATE=1 cargo test -q --release --locked -p skytorch-wire --test header
	@cargo run -q --release --locked -p skytorch-wire --example generate_proto
	@SKYTORCH_GENERATE=1 cargo test -q --release --locked -p skytorch-operator --test crd

# One for the wheel, and one for the operator's image.
notice: ABOUT := $(CACHE)/cargo-tools/bin/cargo-about
notice: ## regenerate NOTICE: the licences of what is linked in (needs cargo-about, which it compiles once)
	@test -x $(ABOUT) || cargo install --locked --root $(CACHE)/cargo-tools --features cli cargo-about
	@$(ABOUT) about generate --offline --locked -m crates/skytorch-py/Cargo.toml -c .ci/about.toml -o NOTICE .ci/about.hbs
	@$(ABOUT) about generate --offline --locked -m crates/skytorch-operator/Cargo.toml -c .ci/about.toml -o crates/skytorch-operator/NOTICE .ci/about.hbs

demo: build ## train a CNN on the digits on the device sky, and beside it on the local cpu
	@$(PY) examples/train_digits.py

define pack_wheel
	@$(PY) .ci/stage_source.py $(1)
	@rm -rf build/wheel dist
	@$(VENV)/bin/maturin build --release --locked --compatibility linux --out build/wheel --quiet
	@PATH=$(VENV)/bin:$$PATH $(VENV)/bin/auditwheel repair --plat auto $(addprefix --exclude ,$(TORCH_LIBS)) -w dist build/wheel/*.whl 2> build/wheel/audit.log || { cat build/wheel/audit.log; exit 1; }
	@ls -1 dist/*.whl
endef

wheel: build ## the wheel, with the C++ part for the installed torch and the lowest manylinux tag that holds
	$(call pack_wheel)

wheel-check: wheel ## install the wheel into an empty environment and run the digits example there
	@$(PYTHON3) .ci/wheel_check.py --cache $(CACHE)

wheel-release: wire ## the wheel with the C++ part for every supported torch, checked on each (TORCH="2.11 2.15": on these)
	@$(MATRIX) build $(MATRIX_ARGS)
	$(call pack_wheel,--torch "$(TORCH)")
	@$(MATRIX) wheel-check $(MATRIX_ARGS)

clean: ## remove what the build put into this checkout
	@rm -rf build dist python/skytorch/lib python/skytorch/_source $(WIRE)
