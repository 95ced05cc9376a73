# What people do daily, one line each. `make demo` and `make test` set up what they need on the way.
PYTHON ?= python3

.PHONY: help setup demo up status doctor test lint types tutorial chaos scale-out fault-table bench pictures clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */: /' | sort
setup:           ## set up everything, vLLM and its weights included
	@$(PYTHON) scripts/bootstrap
demo: setup      ## patients through all three stages, on real components; ends by itself
	@.venv/bin/careloom demo
up: setup        ## the same stack, until Ctrl-C
	@.venv/bin/careloom up
status: setup    ## what is up, how far it is, and the addresses to open
	@.venv/bin/careloom status
doctor: setup    ## what this machine lacks, and how to get it
	@.venv/bin/careloom doctor
test: setup      ## set up what the tests need and run them
	@scripts/test
lint:            ## ruff, mypy and import-linter
	@$(PYTHON) scripts/bootstrap tests
	@scripts/lint
types:           ## mypy --strict
	@$(PYTHON) scripts/bootstrap tests
	@.venv/bin/mypy
tutorial: setup  ## docs/plugins.md from a clean clone, command by command, with the time it took
	@.venv/bin/python -m tests.tutorial.run --json .careloom/tutorial.json
chaos:           ## every fault there is, every event accounted for, then the long tests (ONLY=kills,load ARGS="--seconds 60" for some)
	@$(PYTHON) scripts/bootstrap
	@.venv/bin/python tests/chaos/run.py --json .careloom/chaos.json $(if $(ONLY),--only $(ONLY)) $(ARGS)
	@$(if $(ONLY),,scripts/test -- -m long)
scale-out:       ## two Celery workers, two dispatchers, six partitions; one of each killed in the middle
	@$(PYTHON) scripts/bootstrap scale-out
	@.careloom/venvs/scale-out/bin/python -m tests.scale_out.run
fault-table:     ## every fault in the running stack: which alert pages, when, what else; runbooks carried out [ONLY=...] [SCALE=0.25]
	@$(PYTHON) scripts/bootstrap
	@.venv/bin/python -m tests.fault_table --write $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE))
bench:           ## every figure beside Airflow's own ways: make bench [ONLY=burst,gateway] [QUICK=1]
	@$(PYTHON) scripts/bootstrap
	@.venv/bin/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)
pictures:        ## every dashboard drawn by Grafana's own components from the last demo's data, into docs/pictures
	@$(PYTHON) scripts/bootstrap pictures
	@.venv/bin/python scripts/draw_dashboards --data .careloom/stack/prometheus/data
clean:           ## forget the stack's state; environments and weights stay
	@rm -rf .careloom/stack
