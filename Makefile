# Skein. `make help` explains the targets.

ROBOTS   ?= 5
VOTERS   ?= 3
HTTP     ?= 127.0.0.1:7780
DATA     ?= .skein
FUZZTIME ?= 10s
# How many packages are tested at once. Tests start whole fleets and measure
# time: more than two at once measure each other.
JOBS     ?= 2
# npm builds the console. Without it, or with `make build NPM=`, the binary serves
# a page that says how to build the console.
NPM      ?= $(shell command -v npm)

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT   := $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS  := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

GO_FILES        = $(shell find . -name '*.go' -not -path '*/node_modules/*' -not -path './.*')
CONSOLE_SOURCES = $(shell find console -path console/node_modules -prune -o -path console/dist -prune -o -type f -not -name '*.go' -print 2>/dev/null)
# Tests that start the program take this one, not a build of their own.
TESTRUN         = SKEIN_BIN='$(CURDIR)/bin/skein' go run ./scripts/testrun
STATICCHECK     = go tool -modfile=scripts/tools/go.mod staticcheck

.DEFAULT_GOAL := help
.PHONY: help build console run test check race fuzz bench bench-log soak clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: console ## build bin/skein: static, without cgo, the console inside
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/skein ./node/cmd/skein

ifeq ($(NPM),)
console:
	@echo 'no npm: bin/skein will serve a page that says how to build the console (install Node 20 or later)'
else
console: console/dist/index.html

console/dist/index.html: console/node_modules/.package-lock.json $(CONSOLE_SOURCES)
	cd console && '$(NPM)' run --silent build
	@touch $@

console/node_modules/.package-lock.json: console/package.json console/package-lock.json
	cd console && '$(NPM)' ci --no-audit --no-fund --loglevel=error
	@touch $@
endif

run: build ## build, then start five robots on this machine and print the console's address
	@exec bin/skein dev --robots $(ROBOTS) --voters $(VOTERS) --http $(HTTP) --data $(DATA)

test: build ## all tests: Go, console, LAN of namespaces, browser; ends with what could not run and why
	$(TESTRUN) -console console -- -timeout 10m -p $(JOBS) ./...

check: ## formatting, vet, builds for robots (arm64, armv7), staticcheck, go fix, go.mod, house rules (imports, sizes, docs)
	@unformatted=$$(gofmt -l $(GO_FILES)); [ -z "$$unformatted" ] || { echo "not formatted; run gofmt -w on:" $$unformatted; exit 1; }
	go vet ./...
	go -C scripts/bench/log vet ./...
	@for robot in arm64 arm; do GOARCH=$$robot GOARM=7 CGO_ENABLED=0 go build -o /dev/null ./node/cmd/skein || exit 1; done
	$(STATICCHECK) ./...
	@go fix -diff ./... || { echo 'go fix would change the code as shown; run: go fix ./...'; exit 1; }
	@go mod tidy -diff || { echo 'go.mod or go.sum is not tidy as shown; run: go mod tidy'; exit 1; }
	@go -C scripts/tools mod tidy -diff || { echo 'scripts/tools/go.mod is not tidy as shown; run: go -C scripts/tools mod tidy'; exit 1; }
	@go -C scripts/bench/log mod tidy -diff || { echo 'scripts/bench/log/go.mod does not fit go.mod; run: go -C scripts/bench/log mod tidy'; exit 1; }
	go test ./scripts

race: build ## the Go tests under the race detector
	$(TESTRUN) -- -race -timeout 20m -p $(JOBS) ./...

fuzz: ## every fuzz target for FUZZTIME (10s)
	FUZZTIME=$(FUZZTIME) scripts/fuzz

bench: build ## benchmarks; figures as JSON lines on standard output
	@for program in $$(go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./scripts/bench/...); do \
		SKEIN_BIN='$(CURDIR)/bin/skein' go run $$program || exit 1; done

bench-log: ## the log beside etcd, JetStream and bare raft (ARGS=-quick: under 3 minutes); JSON lines
	@mkdir -p bin
	@go -C scripts/bench/log build -o '$(CURDIR)/bin/bench-log' .
	@bin/bench-log -dir bin $(ARGS)

soak: build ## the tests with long counts: hours
	SKEIN_SOAK=1 $(TESTRUN) -- -count=1 -timeout 4h -p 1 ./...

clean: ## remove what build made; the robots of `make run` stay in .skein
	rm -rf bin console/node_modules
	find console/dist -mindepth 1 -not -name .keep -delete
