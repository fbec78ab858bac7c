.PHONY: help dev test audit bench fuzz load simulate build deploy

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

dev: ## serve the endpoints on http://localhost:9000 (PORT), with stores of their own
	@scripts/with-services.sh --data target/dev --containers scripts/dev.sh

test: ## all that CI checks: formatting, lints, build, tests, a little fuzzing
	@scripts/test.sh

audit: ## the templates: lints, policies, and a deployment into a pretended AWS
	@scripts/audit.sh

bench: ## how fast the functions start and respond, beside their floors: one table, and target/bench.svg
	@scripts/bench.sh

fuzz: ## an hour of libFuzzer at each target of fuzz/, or DURATION seconds
	@scripts/fuzz.sh "$${DURATION:-3600}"

load: ## 80 processes, people and attackers, a store restarted (DURATION, 60 s)
	@scripts/load.sh "$${DURATION:-60}"

simulate: ## days of honest people and attackers (SCENARIOS, such as "1a 2"; all): the tables of docs/abuse.md
	@scripts/with-services.sh cargo run --release --locked --quiet -p simulators --bin simulate -- $(SCENARIOS)

build: ## build the functions for AWS
	@scripts/sam.sh build

deploy: ## create or update everything in your AWS account (STAGE=dev, COUNTRIES=US,CA, NAME=Acme)
	@scripts/deploy.sh
