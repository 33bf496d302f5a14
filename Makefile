# thema's everyday commands: each line below is one that could be typed. `make help` lists them.
#
# `demo` and `test` build the same optimised profile, so dependencies are compiled once. What is built and fetched
# lies outside the clone, in $(THEMA_CACHE): a second clone, or a fresh one, starts warm.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export THEMA_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/thema
export CARGO_TARGET_DIR ?= $(THEMA_CACHE)/target

thema := $(CARGO_TARGET_DIR)/release/thema
encoder := $(THEMA_CACHE)/encoders/all-MiniLM-L6-v2
papers := tests/data/papers.parquet
cargo_flags := --release --locked --workspace

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: build encoder ## build, fit topics on 6,000 papers, label 2,000 others, write a map to look at
	$(thema) fit --input $(papers) --rows 0..6000 --id id --text '{title}: {abstract}' --show '{title}' \
	  --date date --encoder $(encoder) --min-cluster-size 20 --title 'Papers of cs.CL' \
	  --out out/demo/model --overwrite
	$(thema) label --input $(papers) --rows 6000..8000 \
	  --model out/demo/model --out out/demo/labelled.parquet --overwrite
	@echo
	@echo 'The map of the topics:     $(CURDIR)/out/demo/model/report.html (open it in a browser)'
	@echo 'The same as a picture:     $(CURDIR)/out/demo/model/map.png'
	@echo 'The other 2,000, labelled: $(CURDIR)/out/demo/labelled.parquet'

.PHONY: test
test: build encoder servers ## run every test (some run the program itself, so it is built first)
	left_out=$$(tests/servers/lib/left-out.sh); trap 'tests/servers/lib/left-out.sh >/dev/null' EXIT; \
	  cargo test $(cargo_flags) -- $$left_out

.PHONY: kill-test
kill-test: build encoder servers ## kill streams and a broker again and again (CYCLES=200, SEED=1), and count what came out
	mkdir -p out
	CYCLES=$(or $(CYCLES),200) cargo test $(cargo_flags) --test all -- \
	  stream::kill --nocapture --test-threads 1 2>&1 | tee out/kill-test.log
	@grep '^{' out/kill-test.log

.PHONY: soak
soak: build encoder servers ## run a stream for long (MINUTES=30), and watch its memory
	mkdir -p out
	MINUTES=$(or $(MINUTES),30) cargo test $(cargo_flags) --test all -- stream::soak --nocapture 2>&1 | tee out/soak.log
	@grep '^{' out/soak.log

.PHONY: lake-check
lake-check: build encoder ## label a lake on an S3 server, killed on the way (ROWS=2000000, SAMPLE=10000), and count what came out
	mkdir -p out
	ROWS=$(or $(ROWS),2000000) SAMPLE=$(or $(SAMPLE),10000) PAPERS=$(or $(PAPERS),2000) NOISE=$(or $(NOISE),0.02) \
	  cargo test $(cargo_flags) --test all -- lake::check --nocapture 2>&1 | tee out/lake-check.log
	@grep '^{' out/lake-check.log

.PHONY: bench
bench: build encoder ## compare speed with the tools people use (see benchmarks/README.md)
	benchmarks/run.sh

.PHONY: gpu-pack
gpu-pack: setup ## build what `gpu-check` runs, into out/gpu, to be carried to a machine with a GPU
	benchmarks/gpu-pack.sh out/gpu

# Where there is no cargo, out/gpu must have been carried along.
.PHONY: gpu-check
gpu-check: $(if $(shell command -v cargo),gpu-pack) ## check and measure everything on this machine's NVIDIA GPU (ARGS=--small: on none)
	benchmarks/gpu-check.sh out/gpu $(ARGS)

.PHONY: build
build: setup ## build the program `thema`
	cargo build $(cargo_flags) --bin thema

.PHONY: setup
setup: ## install what building needs and this machine lacks
	scripts/setup.sh

.PHONY: encoder
encoder: setup ## fetch the default encoder into the cache
	scripts/fetch-encoder.sh

# Each file of tests/servers installs one thing that the tests run against; see its README.
.PHONY: servers
servers: setup
	for server in $(wildcard tests/servers/*.sh); do "$$server"; done

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all
	scripts/kernels.sh format

.PHONY: lint
lint: lint-format lint-shell lint-deps lint-kernels lint-clippy lint-clippy-no-cuda lint-docs ## check all that no test sees

.PHONY: lint-setup lint-format lint-shell lint-deps lint-kernels lint-clippy lint-clippy-no-cuda lint-docs
lint-setup:
	scripts/setup.sh --lint

lint-format: lint-setup
	cargo fmt --all --check
	scripts/kernels.sh format --check

lint-shell: lint-setup
	git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck

lint-deps: lint-setup
	scripts/check-deps.py --self-test
	scripts/check-deps.py

lint-clippy: lint-setup
	cargo clippy $(cargo_flags) --all-targets -- -D warnings

# Builds without CUDA support: kernels and operators are the same code over another driver, and the program has no
# object stores either.
lint-clippy-no-cuda: lint-setup
	cargo clippy --release --locked -p thema-kernels -p thema-operators --all-targets -- -D warnings
	cargo clippy --release --locked -p thema --no-default-features --all-targets -- -D warnings

# The embedded kernels are those of the sources, and the tests of the kernels see bugs.
lint-kernels: lint-setup
	scripts/kernels.sh check
	scripts/kernels.sh planted

lint-docs: lint-setup
	RUSTDOCFLAGS='-D warnings' cargo doc $(cargo_flags) --no-deps

.PHONY: clean-demo
clean-demo: ## remove what the demo wrote
	rm -rf out/demo
