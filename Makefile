# `make demo` shows what Penstock does, `make test` tests it. Both need Go, git and make; the race detector also needs a C compiler.

GO   ?= go
LINT := $(GO) tool -modfile=$(CURDIR)/tools.mod golangci-lint

# Modules of their own, so that what they need stays out of go.mod.
MODULES := $(sort $(patsubst %/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path '*/testdata/*' -not -path './.git/*')))

# Code that touches lent memory: it is tested once more with the invariants on and slabs off the heap (race builds keep them on it).
MEMORY := ./arena/... ./decode/... ./loop/... ./plugin/... ./actor/...

# Build tags of the project; lint looks at the code behind them too.
TAGS := penstock_invariants,penstock_trace,penstock_mutate

# What may be set on the command line.
FIGURE   ?=
SEEDS    ?= 1000
SEED     ?=
DURATION ?=
FUZZTIME ?= 30s

.PHONY: help demo test vet cross tags modules-test planted race unit lint bench bench-check sim fuzz generate fmt

help: ## show this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## run the main example: 20,000 real flights
	$(GO) build -o bin/ ./cmd/penstock ./examples/flights
	./bin/flights run -c examples/flights/penstock.yaml --until-idle
	@echo; echo "The ten airports that cost their passengers most time (minutes of delay, of all departures together):"
	@head -n 10 examples/flights/out/airports.ndjson

# The last part ends the output as go test does. One after another also under make -j: each part uses all processors by itself.
test: ## everything that must pass: vet, other systems, tags, simulator, race, unit tests
	@$(MAKE) --no-print-directory -j1 vet cross tags modules-test planted race unit

vet: ## go vet, as for this machine
	$(GO) vet ./...

cross: ## build, and vet with tests, for the other systems
	GOOS=darwin $(GO) vet ./...
	GOOS=darwin $(GO) build ./...
	GOOS=windows $(GO) vet ./...
	GOOS=windows $(GO) build ./...

tags: ## tests of the builds behind tags
	$(GO) test -tags penstock_trace ./arena/...
	$(GO) test -tags penstock_invariants $(MEMORY)

modules-test: ## correctness tests of the modules beside the main one
	@for m in $(MODULES); do (set -x; cd $$m && $(GO) vet ./... && $(GO) test ./...) || exit 1; done

planted: ## the simulator must find every planted bug within 1,000 seeds
	PENSTOCK_SIM_SEEDS=1000 $(GO) test -tags penstock_mutate -run Planted -v ./internal/sim

race: ## all tests under the race detector
	$(GO) test -race ./...

unit: ## all tests, with 1,000 seeds of the simulator, fuzz corpora, import ranks, links and file maps
	PENSTOCK_SIM_SEEDS=1000 $(GO) test ./...

lint: ## golangci-lint (its version is in tools.mod), formatting, tidy module files
	$(GO) mod tidy -diff
	$(LINT) run ./...
	$(LINT) run --build-tags $(TAGS) ./...
	@for m in $(MODULES); do (set -x; cd $$m && $(GO) mod tidy -diff && $(LINT) run ./...) || exit 1; done

bench: ## measure every figure, or one of them: FIGURE=name
	cd bench && $(GO) run . -figure "$(FIGURE)"

bench-check: ## run every figure briefly, for correctness and not for speed
	cd bench && $(GO) run . -check

sim: ## run the simulator for as long as you like: SEEDS=n, DURATION=10m, or one seed again: SEED=n
	PENSTOCK_SIM_SEEDS=$(SEEDS) PENSTOCK_SIM_SEED=$(SEED) PENSTOCK_SIM_DURATION=$(DURATION) \
		$(GO) test -count=1 -timeout 0 -v ./internal/sim

fuzz: ## run each fuzz target for FUZZTIME=30s
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's,/[^/]*:func , ,' | sort -u | \
	while read -r pkg target; do \
		(set -x; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg < /dev/null) || exit 1; \
	done

generate: ## make generated files anew
	$(GO) generate ./...

fmt: ## format all Go files
	$(LINT) fmt
