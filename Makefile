# roomcast: what a newcomer and the continuous integration type. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test docs charts observe cluster bench fuzz properties soak bench-restart lint deny

help: ## Lists the commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Builds and serves on loopback, in memory, with a key of this run; prints how to try it.
	@scripts/run

test: ## Installs what is missing by name, then runs every test.
	@scripts/test

docs: ## Builds the documentation as a static site and checks its links.
	@scripts/docs

charts: ## Only the tests of charts/ and k8s/.
	@scripts/charts

observe: ## Only the tests of metrics, dashboards and alert rules, with a real Prometheus.
	@scripts/observe

cluster: ## Serves with redis-server, three nodes and nginx in front, on loopback, until Ctrl-C.
	@scripts/cluster

bench: ## Measures both engines beside Node's socket.io and others, in a release build; 20 to 25 minutes after it.
	@scripts/bench

bench-restart: ## Restarts three nodes one after the other under 5,000 clients, beside Node's socket.io.
	@scripts/bench-restart

fuzz: ## Every fuzz target for long, guided by coverage; FUZZ_RUNS and FUZZ_SECONDS bound it.
	@scripts/fuzz

properties: ## The codecs beside their references in 20,000 random cases each; PROPTEST_CASES bounds them.
	@scripts/properties

soak: ## Mixed traffic of which every event is checked, for ten minutes; SOAK_SECONDS bounds it.
	@scripts/soak

lint: ## Formatting, clippy and rustdoc with warnings denied, licences and bans of dependencies.
	@scripts/lint

deny: ## Only the licences and bans of dependencies.
	@scripts/deny
