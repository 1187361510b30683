# make demo    every feature on real checkpoints, in a folder of its own
# make test    the whole test suite, real mounts and a real server included
# make check   lint, types, layers
# make soak    10 000 random operations on real mounts against a model: SEED=.. OPS=..
# make faults  network faults, kill -9 and races, SEEDS=200 of each; FLAGS="--fault cut --show" for all of some
# make fuzz    decoders against made-up payloads for a minute, where atheris is installed
# make api     requests made from the server's OpenAPI description for some minutes: EXAMPLES=.. for each endpoint
# make bench   tables of times and bytes beside other tools
# make bench-mount   the same of mounts: reads, writes, a slow link (root); BENCH_FLAGS=--quick for less
# make bench-remote  push, pull and many lazy readers beside git-lfs, restic, rclone and nginx (root); BENCH_FLAGS as above
# make format  rewrite the sources as the formatter wants them
# Each installs what it misses first; see .ci/setup.

SHELL := /bin/bash
BIN := .venv/bin
JOBS ?= 2

.PHONY: demo test check soak faults fuzz api bench bench-mount bench-remote format setup clean

setup:
	@.ci/setup

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" docs/tutorial/demo.sh

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -rs $(PYTEST_FLAGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: setup
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED)) $(if $(OPS),--ops $(OPS))

faults: setup
	$(BIN)/python -m tests.faults.campaign $(or $(FLAGS),--spread) --seeds $(or $(SEEDS),200)
	$(BIN)/python -m tests.faults.campaign --at static --spread --seeds 20
	$(BIN)/python -m tests.faults.campaign --at bucket --spread --seeds 20
	$(BIN)/python -m tests.faults.killing_transfer --rounds $(or $(SEEDS),200)
	PUSHES=$(or $(SEEDS),200) $(BIN)/python -m pytest --timeout 1200 tests/faults/test_races.py

fuzz: setup
	$(BIN)/python -m tests.fuzz.fuzz_codecs

api: setup
	EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest --timeout 3600 tests/conformance/test_openapi.py

bench:
	@.ci/setup bench
	$(BIN)/python -m tests.benchmarks.bench_commit
	$(BIN)/python -m tests.benchmarks.bench_bytes --series build/series
	$(BIN)/python -m tests.benchmarks.bench_ingest --series build/series
	$(BIN)/python -m tests.benchmarks.bench_small --repeats 1
	$(BIN)/python -m tests.benchmarks.bench_codecs build/series/mlm
	$(BIN)/python -m tests.benchmarks.bench_depth build/series/mlm/bf16_v[0-5].safetensors

bench-mount:
	@.ci/setup bench
	$(BIN)/python -m tests.benchmarks.bench_mount --series build/series $(BENCH_FLAGS)
	$(BIN)/python -m tests.benchmarks.bench_staging --mb 91 --repeats 3
	$(BIN)/python -m tests.benchmarks.bench_remote --repeats 1 $(BENCH_FLAGS)

bench-remote:
	@.ci/setup bench
	$(BIN)/python -m tests.benchmarks.bench_push $(BENCH_FLAGS)
	$(BIN)/python -m tests.benchmarks.bench_serve $(BENCH_FLAGS)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
