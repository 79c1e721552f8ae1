# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
FLOOR := 3.10

.PHONY: install demo speed test fast coverage dist docs docs-serve clean

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "jepa_agent needs Python $(FLOOR) or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 install"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "the venv module is missing: apt install python3-venv (or your system's name for it)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: install
	@$(BIN)/python -c 'import shutil; shutil.rmtree("runs/demo", ignore_errors=True)'
	$(BIN)/jepa-agent train --env CartPole-v1 -n 3000 --eval-freq 1000 --eval-episodes 5 -P --output runs/demo
	$(BIN)/jepa-agent evaluate runs/demo --episodes 5
	@echo "Curves: $(BIN)/tensorboard --logdir runs/demo"

speed: install
	$(BIN)/jepa-agent speed --output runs/speed.json

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Types and imports are checked on the installed layout, where envs/ and experiments/ stand inside the package.
	rm -rf build  # setuptools keeps modules there that have moved since
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/layout .
	cd build/layout && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p jepa_agent
	cd build/layout && ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

fast: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -m fast

coverage: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --cov --cov-report=term

dist: install
	rm -rf dist build/core
	$(BIN)/python -m build --outdir dist
	@($(BIN)/python -m tarfile -l dist/*.tar.gz; $(BIN)/python -m zipfile -l dist/*.whl) > build/names.txt
	@! grep -E '(^|/)(tests|results|figures|runs)/' build/names.txt
	$(PYTHON) -m venv build/core  # where the wheel has to do with the core alone
	build/core/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	build/core/bin/jepa-agent --version
	OMP_NUM_THREADS=1 build/core/bin/python tests/core_alone.py 400

docs: .venv/docs
	$(BIN)/mkdocs build --strict

docs-serve: .venv/docs
	$(BIN)/mkdocs serve

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
