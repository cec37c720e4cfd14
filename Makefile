# `make` lists the targets. They run `setup`, below, when it is needed.

VENV ?= .venv
PYTHON ?=
ARGS ?=

CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.12 python3.11 python3.10 python3)
BIN := $(VENV)/bin
# A copy of the requirements.lock that is installed in $(VENV). It exists only if the installation finished.
STAMP := $(VENV)/installed.lock
# pip reads a setting on a requirement's line since 23.1, and always obeys it since 25.3.
PIP := pip==26.3
# Build tools for old archives (learn2learn, gym, …). Newer ones may drop what these archives rely on.
BUILD_TOOLS := setuptools==84.2.1 cython==3.3.1

# Exits with the reason if the Python that runs it is not suitable.
define CHECK_PYTHON
import os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit("is Python " + version + ", not 3.10 to 3.12")
try:
    import ensurepip, venv
except ImportError:
    sys.exit("lacks venv (Debian, Ubuntu: apt install python%s-venv)" % version)
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("lacks Python.h (Debian, Ubuntu: apt install python%s-dev)" % version)
endef
export CHECK_PYTHON

# Prints the first suitable interpreter among its arguments, or why none is. A name on PATH may still fail to run.
define FIND_PYTHON
for python do
	if ! "$$python" -c '' >/dev/null 2>&1; then reason='does not run'
	elif reason=$$("$$python" -c "$$CHECK_PYTHON" 2>&1); then echo "$$python"; exit 0
	fi
	reasons="$$reasons
  $$python $$reason"
done
echo "No Python for the set-up:$$reasons
Name one: make PYTHON=/path/to/python3.11 ..." >&2
exit 1
endef
export FIND_PYTHON

.PHONY: help train test slow lint bench setup lock clean
.DEFAULT_GOAL := help

help:
	@echo 'make train   python train.py $$(ARGS), for example make train ARGS="fit --help"'
	@echo 'make test    lint, then the quick tests: pytest $$(ARGS)'
	@echo 'make slow    the other tests, which start processes, compile or run notebooks'
	@echo 'make lint    ruff, pyright and the import contracts'
	@echo 'make bench   measure speed: python -m benchmarks $$(ARGS)'
	@echo 'make setup   install requirements.lock into $(VENV); the targets above do it when needed'
	@echo 'make lock    rewrite requirements.lock; ARGS=--upgrade takes the newest versions'
	@echo 'make clean   delete caches; keep $(VENV) and runs/'
	@echo
	@echo 'PYTHON=python3.11 chooses the interpreter for the set-up, VENV=/path another environment.'

train: setup
	@$(BIN)/python train.py $(ARGS)

# The tests of a file stay in one process, which makes their shared fixtures once.
test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow' $(ARGS)

slow: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache --no-logo

bench: setup
	@if [ -e benchmarks/__main__.py ]; then $(BIN)/python -m benchmarks $(ARGS); else echo 'No benchmarks yet'; fi

# Does nothing if $(VENV) works and holds exactly this requirements.lock. After an interruption pip may take half a
# package for a whole one, so the next attempt reinstalls everything.
setup:
	@if cmp -s requirements.lock '$(STAMP)' && $(BIN)/python -c ''; then exit 0; fi; \
	set -e; \
	rm -f '$(STAMP)'; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		command -v cc >/dev/null || { echo 'No C compiler (cc), which learn2learn needs.' \
			'(Debian, Ubuntu: apt install build-essential)' >&2; exit 1; }; \
		found=$$(sh -c "$$FIND_PYTHON" sh $(CANDIDATES)); \
		echo "Making $(VENV) with $$found"; \
		"$$found" -m venv --clear '$(VENV)'; \
	fi; \
	echo 'Installing requirements.lock into $(VENV): several gigabytes and minutes the first time'; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(PIP)'; \
	printf '%s\n' $(BUILD_TOOLS) >'$(VENV)/build-constraints.txt'; \
	again=; if [ -e '$(STAMP).part' ]; then again=--ignore-installed; fi; \
	cp requirements.lock '$(STAMP).part'; \
	$(BIN)/python -m pip install $$again --build-constraint '$(VENV)/build-constraints.txt' -r requirements.lock; \
	mv '$(STAMP).part' '$(STAMP)'; \
	echo '$(VENV) is ready'

# The resolver does not read a setting on a requirement's line, so it is removed and put back.
SETTING := --config-settings="--build-option=build_ext"
lock:
	@set -e; \
	work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	python=$$(sh -c "$$FIND_PYTHON" sh $(CANDIDATES)); \
	"$$python" -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv; \
	for file in requirements.txt requirements-dev.txt requirements.lock; do \
		if [ -e $$file ]; then sed 's/ --config-settings=.*//' $$file >"$$work/$$file"; fi; \
	done; \
	root=$$PWD; cd "$$work"; \
	UV_PYTHON_DOWNLOADS=never venv/bin/uv pip compile --quiet --universal --python venv/bin/python \
		--python-version 3.10 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		$(ARGS) --output-file requirements.lock requirements-dev.txt; \
	{ \
		echo '# Exact versions for Python 3.10 to 3.12, from requirements-dev.txt. To write this file anew: make lock'; \
		sed 's/^\(learn2learn==[^ ]*\)/\1 $(SETTING)/' requirements.lock; \
	} >"$$root/requirements.lock.part"; \
	mv "$$root/requirements.lock.part" "$$root/requirements.lock"

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -exec rm -rf {} +
