# Everything here needs Python 3.11 (or 3.12) and make, nothing else; see README.md.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
REQUIREMENTS = deploy/requirements

.PHONY: demo test lint bench bench-consumer bench-fixes bench-lookup bench-pairs experiment kafka faults requirements model proto clean

demo: $(VENV)/online ## run the whole pipeline on sample photos, or on PHOTOS=folder
	@$(BIN)/image-score demo $(if $(PHOTOS),--photos "$(PHOTOS)")

test: $(VENV)/dev $(VENV)/brisque lint ## run every check and test, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev ## listings/s of the whole pipeline beside bare Triton
	$(BIN)/python tests/bench/end_to_end.py $(ARGS)

bench-lookup: $(VENV)/dev ## lookups at search time beside raw MGETs of the same keys, a million listings in Redis
	$(BIN)/python tests/bench/lookup.py $(ARGS)

bench-fixes: $(VENV)/dev ## what fixes cost and bring, on labelled photos; ARGS="--photos FOLDER --labels FILE"
	$(BIN)/python tests/bench/fixes.py $(ARGS)

bench-pairs: $(VENV)/dev ## preference pairs from a simulated search log of a million impressions
	$(BIN)/python tests/bench/pairs.py $(ARGS)

bench-consumer: $(VENV)/dev $(REQUIREMENTS)/bench.txt ## the consumer beside a plain loop, FastStream and Quix Streams
	@test -d .venv-bench || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(REQUIREMENTS)/bench.txt
	.venv-bench/bin/python tests/bench/consumer.py $(ARGS)

experiment: $(VENV)/dev ## a SIMULATED A/B test of ranking with the score, through every real process; needs Java and Maven
	@$(BIN)/python -m tests.market.run $(ARGS)

kafka: $(VENV)/dev ## a real Kafka broker until Ctrl-C; needs Java 17, and Maven the first time
	@$(BIN)/python -m tests.real_kafka

ROUNDS ?= 100
SEED ?= 1
faults: $(VENV)/dev ## inject ROUNDS faults into the whole pipeline on real Kafka, and check that nothing is lost
	$(BIN)/python -m tests.faults.run --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

$(VENV)/bin/pip:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: Python's venv is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# uv installs in seconds what takes pip half a minute; where it cannot reach the index, pip may know how to.
INSTALL = install() { \
  $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python "$$@" 2>/dev/null || \
  $(BIN)/pip install --quiet --disable-pip-version-check "$$@"; \
}; install --no-deps

$(VENV)/online: $(VENV)/bin/pip $(REQUIREMENTS)/installer.txt $(REQUIREMENTS)/online.txt pyproject.toml
	@echo "installing what the online path needs into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(REQUIREMENTS)/installer.txt
	@$(INSTALL) --require-hashes -r $(REQUIREMENTS)/online.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: $(VENV)/online $(REQUIREMENTS)/dev.txt
	@$(INSTALL) --require-hashes -r $(REQUIREMENTS)/dev.txt
	@touch $@

# A baseline whose library is compiled while it is installed: where that cannot be, reports go without it.
$(VENV)/brisque: $(VENV)/dev $(REQUIREMENTS)/brisque.txt
	@$(INSTALL) --require-hashes -r $(REQUIREMENTS)/brisque.txt || echo "make: without g++ there is no BRISQUE to compare with"
	@touch $@

model: $(VENV)/dev $(VENV)/brisque ## make the default model again from LABELS and PHOTOS, as the repository's next version
	@test -n "$(LABELS)" -a -n "$(PHOTOS)" || { echo "make: give LABELS=folder PHOTOS=folder" >&2; exit 1; }
	$(BIN)/python -m triton_models.making --photos "$(PHOTOS)" --labels "$(LABELS)" $(ARGS)

PIN = .venv-pin/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-annotate --no-header
requirements: ## pin every dependency again, with hashes
	@$(PYTHON) -m venv .venv-pin && .venv-pin/bin/pip install --quiet uv
	@echo uv | $(PIN) - -o $(REQUIREMENTS)/installer.txt
	@for name in online dev brisque bench; do \
	  $(PIN) $$([ $$name = online ] || echo "--extra $$name") $$([ $$name = online -o $$name = bench ] || echo "--extra train") pyproject.toml $(REQUIREMENTS)/build.in \
	    -o $(REQUIREMENTS)/$$name.txt; \
	done

proto: $(VENV)/dev ## make Python's code from schemas/lookup.proto again
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. schemas/lookup.proto

clean:
	rm -rf .venv .venv-bench .venv-pin .kafka .opensearch image-score-demo image-score-experiment build
