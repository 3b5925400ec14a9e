# The whole day-to-day: `make run`, `make test`, `make bench`, `make fmt`, `make lint`.
# One profile (release) serves them all: the engine takes 10 to 12 minutes to compile on 2 cores, so it is compiled once.

CARGO ?= cargo

.PHONY: run test prepare bench fmt lint deny

## Fetches the default model, builds, indexes the sample handbook and serves on http://127.0.0.1:8080.
run:
	$(CARGO) run --release -- serve --docs handbook

## Installs what the tests drive (a browser, Python clients), then runs every test.
test: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    $(CARGO) test --release --doc --quiet && $(CARGO) nextest run --release --no-fail-fast; \
	else \
	    $(CARGO) test --release --no-fail-fast; \
	fi

prepare:
	@tests/prepare.sh

## Prints the figures of benches/RESULTS.md for this machine.
bench:
	$(CARGO) bench --profile release

fmt:
	$(CARGO) fmt --all

## Everything that judges the code without running it.
lint: deny
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --no-deps

## Licences, sources, duplicate and vulnerable dependencies (deny.toml).
deny:
	@.ci/deny
