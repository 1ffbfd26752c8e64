# `make demo` maps a scene, `make test` checks the project; both need only Python 3.10+ and make.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test types suite test-browser test-min docs model-code clean

.venv/core: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/core
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

demo: .venv/core
	mkdir -p $(DEMO)
	$(BIN)/crossearth synth temperate-summer $(DEMO)/scene.tif --seed 100 --overwrite
	$(BIN)/crossearth predict $(DEMO)/scene.tif $(DEMO)/map.tif --preview $(DEMO)/preview.png --overwrite

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs 2 types suite

types: .venv/dev
	$(BIN)/mypy

suite: .venv/dev
	$(BIN)/pytest $(SIDE_BY_SIDE)

# The app in a real browser: `apt-get install chromium` first.
test-browser: .venv/dev
	$(BIN)/pip install --quiet --editable ".[browser]"
	$(BIN)/pytest -m browser

# The lowest versions that pyproject.toml allows, as uv resolves them; the oldest torch on PyPI brings CUDA: 6 GB.
.venv-min/done: pyproject.toml
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/pip install --quiet --upgrade pip uv
	.venv-min/bin/uv pip install --quiet --python .venv-min/bin/python --resolution lowest-direct --editable ".[dev]"
	touch $@

test-min: .venv-min/done
	.venv-min/bin/pytest $(SIDE_BY_SIDE)

docs: .venv/dev
	$(BIN)/mkdocs build --site-dir build/docs

# The modules in hub_cards/crossearth-tiny, after a change of those in crossearth_hf/model.
model-code: .venv/core
	$(BIN)/python scripts/model_code.py

clean:
	rm -rf .venv .venv-min $(DEMO) build *.egg-info
