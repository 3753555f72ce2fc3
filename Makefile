# `make demo`, `make test` and `make check` each do all of their own set-up, below .venv and .tools.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
PROTOC  := .tools/protoc
PROTOS  := $(shell find protos -name '*.proto' | sort)

.PHONY: help env test check lint typecheck imports proto proto-check buf demo bench bench-peers bench-check bench-budget bench-curves bench-plots fuzz soak test-protobufs clean FORCE
.DEFAULT_GOAL := help

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

env: $(VENV)/.installed ## Make the virtual environment

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lading needs Python 3.11 or later; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server,dev]'
	touch $@

test: env ## Run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

check: env lint typecheck imports buf proto-check ## Run every static check

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: env
	$(BIN)/mypy

imports: env
	$(BIN)/lint-imports

buf: env
	PATH="$(CURDIR)/$(BIN):$$PATH" buf lint
	PATH="$(CURDIR)/$(BIN):$$PATH" buf format --diff --exit-code

# The generated code is made with an old grpcio-tools, in an environment of its own, because its output works under
# every protobuf from 4.25 to 7: docs/decisions/0002-generated-code.md.
$(PROTOC)/.installed: Makefile
	for python in $(PYTHON) python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(not (3, 9) < sys.version_info < (3, 13))' 2>/dev/null; then \
	    $$python -m venv --clear $(PROTOC) && break; fi; done
	test -x $(PROTOC)/bin/python || { echo 'make proto needs Python 3.10 to 3.12: grpcio-tools 1.62.3 has no wheel for a later one'; false; }
	$(PROTOC)/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.62.3 mypy-protobuf==3.6.0 'setuptools<80'
	touch $@

# Guided by which code has been reached; tests/fuzz/test_targets.py runs the same targets with Hypothesis. Where there is no
# wheel of atheris it says so.
FUZZ_SECONDS ?= 30

fuzz: env ## Fuzz everything that is read from others, for a while
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris || true
	$(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

# Everything that is stored is used and let go of again, next to a collector: docs/reliability.md.
SOAK ?= --operations 100000

soak: env ## Put, get and delete for an hour next to a collector; SOAK="--operations 10000" for less
	$(BIN)/python -m tests.soak $(SOAK)

proto: $(PROTOC)/.installed ## Generate sdk/lading_proto from protos
	rm -rf .tools/generated && mkdir -p .tools/generated
	PATH="$(CURDIR)/$(PROTOC)/bin:$$PATH" $(PROTOC)/bin/python -m grpc_tools.protoc -I protos \
	  --python_out=.tools/generated --grpc_python_out=.tools/generated \
	  --mypy_out=quiet:.tools/generated --mypy_grpc_out=quiet:.tools/generated $(PROTOS)
	find .tools/generated -type d -exec touch {}/__init__.py \; && rm .tools/generated/__init__.py
	touch .tools/generated/lading_proto/py.typed
	rm -rf sdk/lading_proto && cp -r .tools/generated/lading_proto sdk/lading_proto

proto-check: ## Fail when sdk/lading_proto is not what `make proto` makes
	rm -rf .tools/committed && mkdir -p .tools && cp -r sdk/lading_proto .tools/committed
	$(MAKE) --no-print-directory proto
	diff -r --exclude=__pycache__ .tools/committed sdk/lading_proto

bench: env ## Measure the project alone; BENCH="--parts registry --versions 1000" for less
	$(BIN)/python -m tests.bench $(BENCH)

bench-peers: env ## Measure the project and its peers in turn; BENCH="--peers mlflow --workloads big" for less
	$(BIN)/python -m tests.bench.peers $(BENCH)

bench-check: env ## Fail when the project became slower in relation to its peers than docs/benchmarks.json says
	$(BIN)/python -m tests.bench.peers --check docs/benchmarks.json $(BENCH)

bench-budget: env ## Measure each step of an upload alone
	$(BIN)/python -m tests.bench.budget $(BENCH)

CURVES := docs/benchmark-curves

bench-curves: env ## Measure the curves that `make bench-plots` draws
	$(BIN)/python -m tests.bench --parts curves --json $(CURVES).json $(BENCH)

# matplotlib is nobody's dependency here.
.tools/plots/.installed: Makefile
	$(PYTHON) -m venv --clear .tools/plots
	.tools/plots/bin/python -m pip install --quiet --disable-pip-version-check matplotlib
	touch $@

bench-plots: .tools/plots/.installed ## Draw the curves again from the figures in docs
	.tools/plots/bin/python tests/bench/plots.py $(CURVES).json $(CURVES).svg

# The SDK runs inside other people's environments: every protobuf that it says it supports, with the oldest grpcio
# that has a wheel for this Python.
PROTOBUFS := 4.25.9 5.29.6 6.33.6 7.36.2

test-protobufs: $(PROTOBUFS:%=.tools/protobuf-%/.passed) ## Run the SDK under each supported protobuf

.tools/protobuf-%/.passed: FORCE
	test -x .tools/protobuf-$*/bin/python || $(PYTHON) -m venv .tools/protobuf-$*
	.tools/protobuf-$*/bin/python -m pip install --quiet --disable-pip-version-check -e . 'protobuf==$*'
	.tools/protobuf-$*/bin/python tests/support/sdk_smoke.py $(BIN)/python
	touch $@

demo: env ## Train, log, link and deploy on real images, with a server of its own
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	$(BIN)/python -m lading._demo

clean: ## Remove what the other targets made
	rm -rf .venv .tools .bench .fuzz demo-data

FORCE:
