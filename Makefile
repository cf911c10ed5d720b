VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: demo test check coverage docs notebooks bench torture format

demo: $(VENV)/installed          ## the main job on a built-in cohort
	$(BIN)/conocc demo --out conocc-demo

# Threads of several test processes, waiting for each other, leave their core.
test: $(VENV)/installed          ## the tests; CONOCC_DATA names a folder of real images, if any
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto

check: $(VENV)/installed         ## lint, format, types, who may import whom, known vulnerabilities
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py
	$(BIN)/python .ci/audit.py

coverage: $(VENV)/installed      ## the tests, and which branches of src/ they take
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt coverage
	$(BIN)/coverage run -m pytest -q -n auto -p no:cacheprovider
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

docs: $(VENV)/installed          ## the site, into build/site; warnings are errors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	rm -rf docs/api # what is no longer listed in docs/api.md would stay
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/site
	@echo "The site is in build/site/index.html."

notebooks: docs                  ## three notebooks of the gallery, run as a reader would run them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	$(BIN)/jupyter execute docs/auto_examples/plot_1_fit_and_score.ipynb \
	  docs/auto_examples/plot_3_threshold.ipynb docs/auto_examples/plot_5_heat_maps.ipynb

bench: $(VENV)/installed         ## time and memory beside Keras and PyTorch, into docs/research/performance.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

torture: $(VENV)/installed      ## damaged files and faults in mid-work; docs/research/reliability.md
	$(BIN)/python -m torture.mutations
	$(BIN)/python -m torture.strikes
	$(BIN)/python -m torture.dicomweb
	[ ! -x /usr/sbin/Orthanc ] || $(BIN)/python -m torture.dicomweb --orthanc --count 240

format: $(VENV)/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
