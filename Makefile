# `make demo` maps a scene, `make test` checks the project; both need only Python 3.10+ and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet
DEMO := demo
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test types suite test-transformers test-browser test-min browser-page docs model-code clean

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

# Each of these installs everything at once, since pip takes its time to resolve what belongs together.
.venv/core: pyproject.toml | .venv/pip
	$(INSTALL) --editable .
	touch $@

.venv/dev: pyproject.toml | .venv/pip
	$(INSTALL) --editable ".[dev]"
	touch .venv/core $@

.venv/browser: pyproject.toml | .venv/pip
	$(INSTALL) --editable ".[dev,browser]"
	touch .venv/core .venv/dev $@

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

# transformers' common tests, out of the installed release's source distribution on PyPI, on our classes.
test-transformers: .venv/dev
	$(BIN)/python scripts/fetch_transformers_tests.py
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m transformers --numprocesses auto --maxprocesses 4 --disable-warnings \
		tests/transformers_common

# The app in a real browser: `apt-get install chromium` first.
test-browser: .venv/browser
	$(BIN)/pytest -m browser

# The page of app/browser with the bundled model and onnxruntime-web; any web server can serve the folder.
browser-page: .venv/core
	$(INSTALL) --editable ".[onnx]"
	cd app/browser && npm install --no-package-lock --ignore-scripts --no-audit --no-fund
	$(BIN)/crossearth export bundled app/browser/model.onnx --overwrite

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

# The modules in the model folders of hub_cards, after a change of those in crossearth_hf/model.
model-code: .venv/core
	$(BIN)/python scripts/model_code.py

clean:
	rm -rf .venv .venv-min $(DEMO) build *.egg-info
