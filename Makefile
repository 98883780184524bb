# mediabolt. Bare `make` lists the targets.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
MODULES     := . $(patsubst %/go.mod,%,$(wildcard bench/go.mod))

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/mediabolt
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/mediabolt ./cmd/mediabolt

.PHONY: test
test: ## run the tests, with the race detector
	$(GO) test -race -timeout 14m ./...

.PHONY: lint
lint: ## gofmt, vet and staticcheck, of every module
	@test -z "$$(gofmt -l .)" || { echo "gofmt wants:"; gofmt -l .; exit 1; }
	@for m in $(MODULES); do (cd $$m && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...) || exit 1; done

.PHONY: cross
cross: ## build for darwin and windows
	@for os in darwin windows; do for arch in amd64 arm64; do \
		echo "GOOS=$$os GOARCH=$$arch"; \
		GOOS=$$os GOARCH=$$arch $(GO) build -o /dev/null ./... && GOOS=$$os GOARCH=$$arch $(GO) vet ./... || exit 1; done; done
