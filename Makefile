# The commands of roomcast, for people and for continuous integration. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test docs charts observe cluster bench fuzz properties soak bench-restart lint deny

help: ## Lists the commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Builds a node and runs it on loopback in development mode; prints how to try it.
	@scripts/run

test: ## Installs missing packages by name, then runs all tests.
	@scripts/test

docs: ## Builds the documentation as a static site and checks its links.
	@scripts/docs

charts: ## Runs only the tests of charts/ and k8s/.
	@scripts/charts

observe: ## Runs only the tests of metrics, dashboards and alert rules, with a real Prometheus.
	@scripts/observe

cluster: ## Runs redis-server, three nodes and nginx in front, on loopback, until Ctrl-C.
	@scripts/cluster

bench: ## Measures both engines beside Node's socket.io and others, in a release build; takes 20 to 25 minutes after the build.
	@scripts/bench

bench-restart: ## Restarts three nodes one after the other under 5,000 clients, beside Node's socket.io.
	@scripts/bench-restart

fuzz: ## Runs every fuzz target for long, guided by coverage; FUZZ_RUNS and FUZZ_SECONDS limit it.
	@scripts/fuzz

properties: ## Compares the codecs with their references in 20,000 random cases each; PROPTEST_CASES sets the number.
	@scripts/properties

soak: ## Sends mixed traffic for ten minutes and checks every event; SOAK_SECONDS sets the duration.
	@scripts/soak

lint: ## Checks formatting, clippy and rustdoc (no warnings), and licences and bans of dependencies.
	@scripts/lint

deny: ## Checks only licences and bans of dependencies.
	@scripts/deny
