SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Packages whose shorter tests run under the race detector in `make test`; `make race` runs all.
RACE_PACKAGES ?= . ./sqlite/... ./records/... ./auth/... ./realtime/... ./tlsauto
FUZZTIME ?= 30s
ROUNDS ?= 30
ARGS ?=

export CGO_ENABLED := 1

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: fmt tidy lint bench-vet fuzz-short try-proxies unit smoke-tls ## all checks: format, go.mod, lint, a little fuzzing, tests

.PHONY: fmt
fmt: ## list files that gofmt would change
	@out="$$(gofmt -l .)"; if [[ -n "$$out" ]]; then echo "not gofmt formatted:"; echo "$$out"; exit 1; fi

.PHONY: tidy
tidy: ## show what go mod tidy would change
	go mod tidy -diff
	cd tlsauto/acmetest && go mod tidy -diff

.PHONY: bench-vet
bench-vet: ## go vet in bench/ of whatever does not pull in the peers
	@tools/bench-vet.sh

.PHONY: lint
lint: .bin/golangci-lint ## golangci-lint with .golangci.yml, which includes all that go vet looks for
	.bin/golangci-lint run
	cd tlsauto/acmetest && "$(CURDIR)/.bin/golangci-lint" run -c "$(CURDIR)/.golangci.yml"

# The version is pinned in tools/go.mod.
.bin/golangci-lint: tools/go.mod tools/go.sum
	cd tools && GOBIN="$(CURDIR)/.bin" go install tool
	@touch $@

.PHONY: proxies
proxies: .bin/proxies/nginx ## nginx and Caddy for the tests behind them (Debian and its relatives, no root)

.bin/proxies/nginx: tools/proxies.sh
	tools/proxies.sh .bin/proxies

# Without them, the tests behind proxies say that they skip.
.PHONY: try-proxies
try-proxies:
	-@if command -v apt-get dpkg-deb >/dev/null; then $(MAKE) --no-print-directory proxies; fi

# Some tests build the programs that they start, which cached results know nothing of: count=1.
# SQLite's C is what takes longest to compile, once for each set of flags. So the second run has
# full-text search too, and an SQLite that is compiled in half the time; lint has vetted the first.
.PHONY: unit
unit: ## go test, then with full-text search and the race detector where concurrency is the point
	go test -p 3 -count=1 -vet=off ./...
	CGO_CFLAGS=-O1 go test -p 3 -vet=off -race -short -tags sqlite_fts5 $(RACE_PACKAGES)

# An ACME authority, Pebble, runs inside these tests, in a module of its own for its dependencies.
.PHONY: smoke-tls
smoke-tls: ## a certificate is issued and rotated under load, in seconds
	cd tlsauto/acmetest && go test -count=1 -vet=off -short ./...

.PHONY: test-tls
test-tls: ## certificates under load: authorities that fail, several processes, each defect of plain autocert
	cd tlsauto/acmetest && go test -count=1 -vet=off -timeout 10m ./...

# The stores run inside these tests, in a module of its own for their dependencies, but for Azurite,
# which npm installs. The tests mostly wait: so more of them at the same time than processors.
.PHONY: test-stores
test-stores: .bin/golangci-lint ## replicas and leases in gs, abs and nats against servers of these kinds
	cd backup/storetest && go mod tidy -diff && "$(CURDIR)/.bin/golangci-lint" run -c "$(CURDIR)/.golangci.yml"
	cd backup/storetest && go test -count=1 -vet=off -parallel 8 -timeout 10m ./...

.PHONY: race
race: ## every test under the race detector
	go test -race -timeout 30m ./...
	cd tlsauto/acmetest && go test -race -timeout 15m ./...
	cd backup/storetest && go test -race -parallel 8 -timeout 15m ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	tools/fuzz.sh $(FUZZTIME)

.PHONY: fuzz-short
fuzz-short: ## every fuzz target for a second, without guidance
	tools/fuzz.sh -blind 1s

.PHONY: crash
crash: ## kill -9 the server, or a replicated program, ROUNDS (30) times under load and look for what is lost
	go test -count=1 -v -timeout 30m ./internal/crash -rounds=$(ROUNDS)
	go test -count=1 -v -timeout 60m ./internal/backupproof -run TestKills -rounds=$(ROUNDS)

.PHONY: bench
bench: ## compare speed and memory with the peers (ARGS="-quick" for a short run)
	cd bench && go run ./cmd/run $(ARGS)

.PHONY: serve
serve: ## run the reference server with the demo data (ARGS="--listen :8080")
	go run ./cmd/refserver serve $(ARGS)
