# demo: train on prose that comes with Python. test, lint, bench: what their names say. test-browser: the atlas in
# Chromium, which it installs (Debian, Ubuntu; elsewhere install chromium and chromedriver); `make test` has these tests too.
# Every target makes .venv by itself; `make PYTHON=python3.12 demo` picks another Python.

PYTHON ?= python3
BIN := .venv/bin
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test test-browser lint bench clean

demo: .venv/.installed
	$(BIN)/tokenspace demo

test: lint
	$(BIN)/python -m pytest

test-browser: .venv/.installed-dev
	@command -v chromedriver >/dev/null || $(ROOT) sh -c 'apt-get update -qq && apt-get install -y -qq chromium chromium-driver'
	$(BIN)/python -m pytest tests/browser

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf .venv

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python must be at least 3.11, but is' "$$($(PYTHON) --version)." 'Name a newer one: make PYTHON=python3.12 demo.'; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
