# firmroot. `make` alone prints this help; every target sets itself up in .venv first.
.DEFAULT_GOAL := help
VENV ?= .venv
export FIRMROOT_VENV := $(VENV)
PY := $(VENV)/bin/python
JOBS ?= 2
FUZZ_SECONDS ?= 600
PYTEST := $(PY) -m pytest -q -n $(JOBS) --dist loadfile

.PHONY: help
help: ## this help
	@echo "firmroot: firmware updates that outlive certificates, clocks and keys"
	@echo
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo
	@echo '  make demo FIRMWARE="old.img new.img"   tells the story with your own files'

.PHONY: setup-release setup-dev setup-fuzz
setup-release:
	@sh scripts/bootstrap release
setup-dev:
	@sh scripts/bootstrap dev
setup-fuzz:
	@sh scripts/bootstrap fuzz

.PHONY: demo
demo: setup-release ## the whole story on this terminal, in about half a minute
	@$(PY) -m repo_tools demo $(FIRMWARE)

.PHONY: test
test: setup-dev ## ruff, mypy and the tests that need no service (at most 5 minutes)
	@$(MAKE) --no-print-directory check
	$(PYTEST) -m "not services and not system and not long"

.PHONY: check
check: setup-dev ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

.PHONY: fix
fix: setup-dev ## let ruff format and mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: test-services
test-services: setup-dev ## tests that start a real service or fetch a real package, and large matrices
	@sh scripts/bootstrap fuzz || echo "without atheris the fuzzing tests are skipped (on CI they fail)"
	@sh scripts/bootstrap services || echo "without the services their tests are skipped (on CI they fail)"
	FIRMROOT_FAULTS=60 $(PYTEST) -m "services and not long"
	FIRMROOT_CUTS=6 FIRMROOT_KILLS=full $(PY) -m pytest -q -n $(JOBS) --dist load \
	  tests/power tests/trust/test_store.py tests/publishing/test_kills.py

.PHONY: test-system
test-system: setup-dev ## tests that boot a virtual machine
	@$(PYTEST) -m system; code=$$?; if [ $$code -eq 5 ]; then \
	  echo "no virtual machine scenario exists yet: this tier ran no test"; else exit $$code; fi

.PHONY: long
long: setup-dev ## everything that takes long: 2,000 oracle cases, full matrices, 50 rounds of rivals, benches to 1M targets, fuzzing
	@sh scripts/bootstrap fuzz
	@sh scripts/bootstrap services
	FIRMROOT_ORACLE_CASES=2000 FIRMROOT_CUTS=full FIRMROOT_KILLS=full FIRMROOT_FAULTS=500 $(PYTEST) -m "not system"
	$(PY) -m bench
	$(PY) -m bench.scale
	$(PY) -m bench.scale --bins 4096 --targets 100000 1000000
	$(PY) scripts/fuzz.py --all --seconds $(FUZZ_SECONDS) --jobs $(JOBS)

.PHONY: fuzz
fuzz: setup-fuzz ## every parser under atheris for FUZZ_SECONDS each (600), random repositories and stores
	$(PY) scripts/fuzz.py --all --seconds $(FUZZ_SECONDS) --jobs $(JOBS)
	FIRMROOT_ORACLE_CASES=2000 FIRMROOT_CUTS=full $(PYTEST) -m "not services and not system" -k "oracle or random or whatever"

.PHONY: attacks-table
attacks-table: setup-dev ## write the table of attacks into docs/threat-model.md anew
	$(PY) -m tests.attacks.render

.PHONY: mutants
mutants: setup-dev ## remove each check and each fsync in turn: a named test must fail
	$(PY) scripts/mutants.py

.PHONY: bench
bench: setup-dev ## speed and memory beside tuf.ngclient and curl, in one run
	$(PY) -m bench

.PHONY: bench-scale
bench-scale: setup-dev ## what one artifact more costs in repositories of 1e3 to 1e6 (part of long)
	$(PY) -m bench.scale

.PHONY: lock
lock: ## renew the locked requirements (needs uv)
	@sh scripts/lock --upgrade
