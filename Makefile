# The commands of the house. `make run` and `make test` need nothing but a Rust toolchain and,
# for the tests, python3 and Node.js with npm.

VENV := target/venv
PYTHON := $(VENV)/bin/python
REQUIREMENTS := tests/python/requirements.txt
NODE := target/js
CONFIG := config/parlour.toml

.DEFAULT_GOAL := help
.PHONY: help run test test-rust test-python test-js simulate check tidy bench bench-federation compare flamegraph memory coverage clean-venv

help:
	@echo "make run       build and start a server on 127.0.0.1:8008, data in ./data"
	@echo "make test      all tests, Rust, Python and JavaScript; what of the specification has none"
	@echo "make check     formatting, lints, and the rules of the house"
	@echo "make test-js   matrix-js-sdk against this server; needs Node.js and npm"
	@echo "make simulate  servers on a bad network: SEEDS=500 runs from FIRST_SEED=1"
	@echo "make tidy      the rules of the house alone"
	@echo "make bench     the benchmarks"
	@echo "make bench-federation  events of other servers, on Parlour and on Synapse: CPU for each"
	@echo "make compare   Parlour and Synapse under the same load: a table and a page in target/compare"
	@echo "make flamegraph  where the server's CPU time goes under load; needs perf"
	@echo "make memory    what an idle server, a sleeping room and a waiting client take of memory"
	@echo "make coverage  what of the specification the last tests have seen, and what is missing"

run:
	cargo build --release --locked --bin parlour
	@echo
	@echo "Parlour starts on http://127.0.0.1:8008, its data in ./data; Ctrl-C stops it."
	@echo "Whoever is on this machine may register: point a Matrix client at that address,"
	@echo "or follow 'A first conversation' in README.md. For other settings, copy $(CONFIG),"
	@echo "change it, and run: target/release/parlour serve --config your.toml"
	@echo
	exec target/release/parlour serve --config $(CONFIG)

# What the Rust tests have seen must be all that is in scope.
test: test-rust test-python test-js
	python3 tests/spec/coverage.py --strict

test-rust:
	rm -rf target/spec-coverage
	cargo test --workspace --locked --no-fail-fast

# The binary is the one that `cargo test` has built. Asking for it in any other way would choose
# other features of the dependencies, and build them all again.
test-python: $(VENV)/installed
	cargo test --workspace --locked --no-run --quiet
	TEST_BINARY=$(CURDIR)/target/debug/parlour PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON) -m pytest tests/python

# Node looks for packages above the file that asks for them, so the tests run where those are. The
# SDK leaves timers of 110 seconds behind (one for each /sync), which nobody has to wait for.
test-js: $(NODE)/installed $(VENV)/installed
	cargo test --workspace --locked --no-run --quiet
	cp tests/js/*.mjs $(NODE)
	cd $(NODE) && TEST_BINARY=$(CURDIR)/target/debug/parlour PYTHONDONTWRITEBYTECODE=1 \
		TEST_PYTHON=$(CURDIR)/$(PYTHON) TEST_SERVERS=$(CURDIR)/tests/python/servers.py \
		node --test --test-force-exit --test-reporter=tap \
		client.test.mjs encryption.test.mjs neighbours.test.mjs

# Rooms alone, and whole servers. A seed that fails is named, and played again by SEEDS=1
# FIRST_SEED=it.
simulate: SEEDS ?= 500
simulate: FIRST_SEED ?= 1
simulate:
	SEEDS=$(SEEDS) FIRST_SEED=$(FIRST_SEED) cargo test --workspace --locked --lib --test it \
		servers_agree_in_the_end -- --nocapture

$(NODE)/installed: tests/js/package.json tests/js/package-lock.json
	mkdir -p $(NODE)
	cp tests/js/package.json tests/js/package-lock.json $(NODE)
	npm --prefix $(NODE) ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(VENV)/installed: $(REQUIREMENTS)
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	touch $@

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(MAKE) tidy

tidy:
	cargo test --workspace --locked --test tidy

bench:
	cargo bench --workspace --locked

# EVENTS says how many events each scenario has; more: tests/python/bench_synapse.py.
bench-federation: $(VENV)/installed
	PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/python/bench_synapse.py

# What it measures, and how to measure less: tests/compare/compare.py.
compare: $(VENV)/installed
	cargo build --release --locked --bin parlour
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r tests/compare/requirements.txt
	PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/compare/compare.py

# Which load, and of which binary: tests/profile/flamegraph.py.
flamegraph:
	@command -v perf > /dev/null || { echo "make flamegraph: perf is missing; install linux-perf (Debian), linux-tools-generic (Ubuntu) or perf (Fedora, Arch)"; exit 1; }
	test -n "$(FLAMEGRAPH_BINARY)" || cargo build --release --locked --bin parlour
	test -x target/tools/bin/inferno-flamegraph || cargo install --quiet --locked --root target/tools "inferno@^0.12"
	PYTHONDONTWRITEBYTECODE=1 python3 tests/profile/flamegraph.py

# How much of each, and of which binary: tests/profile/memory.py.
memory:
	test -n "$(MEMORY_BINARY)" || cargo build --release --locked --bin parlour
	PYTHONDONTWRITEBYTECODE=1 python3 tests/profile/memory.py

coverage:
	python3 tests/spec/coverage.py

clean-venv:
	rm -rf $(VENV)
