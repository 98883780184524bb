# mediabolt. Bare `make` lists the targets.

GO          ?= go
FUZZTIME    ?= 30s
THRESHOLDS  ?= 100%
PROFILE     ?= quick
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
MODULES     := . $(patsubst %/go.mod,%,$(wildcard bench/go.mod observe/*/go.mod))

# With the default, a second, every process that the race detector is in sleeps before it ends; the tests start some 300.
export GORACE := atexit_sleep_ms=10

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/mediabolt
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/mediabolt ./cmd/mediabolt

.PHONY: demo
demo: build ## store the sample media, kill a writer, recover, verify
	@./testdata/demo.sh

.PHONY: test
test: ## run the tests, with the race detector
	$(GO) test -race -timeout 25m ./...

.PHONY: test-modules
test-modules: ## run the tests of the nested modules
	@for m in $(filter-out .,$(MODULES)); do case $$m in observe/*) race=-race;; *) race=;; esac; \
		echo "$$m:"; (cd $$m && $(GO) test $$race -timeout 10m ./...) || exit 1; done

.PHONY: lint
lint: ## gofmt, vet and staticcheck, of every module
	@test -z "$$(gofmt -l .)" || { echo "gofmt wants:"; gofmt -l .; exit 1; }
	@for m in $(MODULES); do (cd $$m && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...) || exit 1; done

.PHONY: cross
cross: ## build and vet every module for darwin and windows
	@for m in $(MODULES); do for os in darwin windows; do for arch in amd64 arm64; do \
		echo "$$m: GOOS=$$os GOARCH=$$arch"; \
		(cd $$m && export GOOS=$$os GOARCH=$$arch && $(GO) build -o /dev/null ./... && $(GO) vet ./...) || exit 1; done; done; done

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each
	@for p in ./storage ./blobs ./boltindex ./engine ./engine/adopt ./engine/sha256mb ./certify/doctor; do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
			$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$p || exit 1; done; done

# The proofs whose form MEDIABOLT_PROOF chooses; MEDIABOLT_PROOF_SEED is their fresh seed. Each has a limit of its own;
# what says "a sample" in its output was not tried wholly within that, and has other cases in the next run.
PROOFS := ^(TestKill|TestConsistency|TestPowerCut|TestMutations|TestStrictCuts|TestStrictCutsOfHolds|TestStrictCutsOfMoves|TestStrictCutsOfAdoptions|TestStrictCutsOfRetention|TestStrictCutsOfCompactions|TestStrictCutsOfRebuilds|TestStrictCutsOfBackups|TestStrictCutsOfRestores|TestStrictCutsOfImports|TestStrictCutsOfLimits|TestStrictMutations|TestStrictHalfSyncs|TestFaultAtEveryCall|TestFaultInHolds|TestFaultInMoves|TestFaultInRebuild|TestFaultInRestore|TestFaultInImport|TestRepairPowerCut|TestRepairFaultAtEveryCall|TestMigrationPowerCut|TestMigrationFaultAtEveryCall|TestKilledCommands|TestRebuildInConstantMemory|TestBackupSettlesAsItGoes)$$

# Those of the core, which the short form is of; the others run with the tests, in a form of seconds.
CORE := ^(TestKill|TestConsistency|TestPowerCut|TestMutations|TestStrictCuts|TestStrictMutations|TestStrictHalfSyncs|TestFaultAtEveryCall|TestRebuildInConstantMemory|TestBackupSettlesAsItGoes)$$

.PHONY: crash
crash: ## prove crash safety, the long form (more than 20 minutes)
	MEDIABOLT_PROOF=long $(GO) test -p 1 -count 1 -timeout 60m -v -run '$(PROOFS)' ./engine ./cmd/mediabolt

.PHONY: crash-short
crash-short: ## prove crash safety, the short form (about 4 minutes)
	MEDIABOLT_PROOF=short $(GO) test -count 1 -timeout 10m -v -run '$(CORE)' ./engine

.PHONY: bench
bench: ## measure the ratios to the floors of disk and cores (about 5 minutes)
	@cd bench && $(GO) run ./cmd/mediabench ratios

.PHONY: bench-short
bench-short: ## run every Go benchmark, too short to mean anything
	@cd bench && $(GO) test -run '^$$' -bench . -benchtime 10x ./...

.PHONY: bench-gate
bench-gate: ## fail when a ratio to a floor is below THRESHOLDS of what it should be
	@cd bench && $(GO) run ./cmd/mediabench gate -thresholds $(THRESHOLDS)

.PHONY: bench-quick bench-full bench-scale
bench-quick: ## measure floors, store and rivals, 5 minutes, into bench/quick.json
bench-full: ## the same, 40 minutes, into bench/full.json
bench-scale: ## with 10 million references, 40 minutes, into bench/scale.json
bench-quick bench-full bench-scale: bench-%:
	@cd bench && $(GO) run -ldflags '-X main.revision=$(VERSION)' ./cmd/mediabench run -profile $* -out $*.json

.PHONY: bench-report
bench-report: ## make a page and plots of bench/PROFILE.json in bench/results
	@cd bench && $(GO) run ./cmd/mediabench report $(PROFILE).json -o results/$(PROFILE)
