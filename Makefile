# make venv    set up .venv, nothing else          make repro   the whole pipeline of params.yaml (ARGS: for dvc repro)
# make dev     the same with the developers' tools
# make smax    the battles of SMAX, too            make meltingpot   those of Melting Pot
# make test    the quick tests (ARGS: for pytest)  make test-all   all of them
# make check   lint, format, types, layers         make docs   the documentation's site, in site/
# make demo    two minutes: train, kill -9, resume, branch
# Each makes what it needs. Package indexes and wheels are pip's business: nothing here names one.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
DEV := .venv/.ready-dev

export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: venv dev smax meltingpot repro demo test test-all check docs
venv: $(READY)
dev: $(DEV)

# torch first and by itself: whichever build of that version the index offers, CPU or CUDA, the rest then fits it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[pipeline,s3,ssh,butterfly,export,video,tune]'
	touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# JaxMARL with what its battles import and no more (versions: constraints.txt): the rest is half a gigabyte, and holds gymnasium back.
smax: venv
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt \
	jaxmarl jax jaxlib ml_dtypes opt_einsum flax chex absl-py msgpack toolz

# Its installer downloads the saved bots of scenarios, which substrates do without: an empty archive where it looks first stands in.
meltingpot: venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[meltingpot]'
	scratch=$$(mktemp -d) && mkdir $$scratch/assets && tar -czf $$scratch/meltingpot-assets-2.3.0.tar.gz -C $$scratch assets && \
	TMPDIR=$$scratch $(BIN)/python -m pip install --quiet --no-deps dm-meltingpot==2.4.1 && rm -r $$scratch

repro: venv
	$(BIN)/matwm repro $(ARGS)

demo: venv
	$(BIN)/python examples/demo.py

test: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal --quick $(ARGS)

test-all: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=20 $(ARGS)

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# What is wrong in a link, an anchor or the navigation fails. Not --quiet: warnings that are not printed do not count as failures then.
docs: venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
