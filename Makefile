# `make` lists the targets. They set up $(VENV) first, when it is needed.

VENV ?= .venv
PYTHON ?=
ARGS ?=

CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python3.14)
BIN := $(VENV)/bin
# Installs as pip does, several times as fast.
UV := uv==0.13.5
# An older pip knows no build constraints.
PIP := pip==26.3
export VENV PIP UV

# Exits with the reason if the Python that runs it is not suitable.
define CHECK_PYTHON
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 14):
    sys.exit("is Python %d.%d, not 3.10 to 3.14" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("lacks venv (Debian, Ubuntu: apt install python%d.%d-venv)" % sys.version_info[:2])
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
Name one: make PYTHON=/path/to/python3.13 ..." >&2
exit 1
endef
export FIND_PYTHON

# Makes $VENV if there is none and installs a lock file, its first argument. A copy of it in $VENV says that this is
# done. An interrupted installation may have left half a package, so the next one installs all of it again.
define INSTALL
set -e
lock=$$1 stamp=$$VENV/$$1 python=$$VENV/bin/python
shift
if cmp -s "$$lock" "$$stamp" && "$$python" -c ''; then exit 0; fi
rm -f "$$stamp"
if ! "$$python" -m pip --version >/dev/null 2>&1; then
	found=$$(sh -c "$$FIND_PYTHON" sh "$$@")
	echo "Making $$VENV with $$found"
	"$$found" -m venv --clear "$$VENV"
fi
echo "Installing $$lock into $$VENV"
"$$python" -m pip install --quiet --disable-pip-version-check "$$PIP"
if [ ! -x "$$VENV/bin/uv" ]; then "$$python" -m pip install --quiet "$$UV" || echo 'Without uv, pip is slower.'; fi
again=; if [ -e "$$stamp.part" ]; then again=yes; fi
cp "$$lock" "$$stamp.part"
printf '%s\n' setuptools==84.2.1 cython==3.3.1 >"$$VENV/build-constraints.txt"
grep -v '^learn2learn==' "$$lock" >"$$VENV/requirements.txt"
install() {
	"$$VENV/bin/uv" pip install --python "$$python" --no-deps --compile-bytecode --build-constraints \
		"$$VENV/build-constraints.txt" $${again:+--reinstall} "$$@" && return
	echo 'uv cannot install this; pip tries.'
	"$$python" -m pip install --no-deps --build-constraint "$$VENV/build-constraints.txt" \
		$${again:+--ignore-installed} "$$@"
}
install -r "$$VENV/requirements.txt"
if learn2learn=$$(grep '^learn2learn==' "$$lock"); then
	install --editable .
	install -C--build-option=build_ext "$$learn2learn" >"$$VENV/learn2learn.log" 2>&1 || echo 'learn2learn was not' \
		"built (it needs a C compiler and Python.h; $$VENV/learn2learn.log says more). All else works without it."
fi
mv "$$stamp.part" "$$stamp"
endef
export INSTALL

.PHONY: help train test slow lint bench setup setup-dev lock clean
.DEFAULT_GOAL := help

help:
	@echo 'make train   python train.py $$(ARGS), for example make train ARGS="fit --help"'
	@echo 'make test    lint, then the quick tests: pytest $$(ARGS)'
	@echo 'make slow    the other tests, which start processes, compile or run notebooks'
	@echo 'make lint    ruff, pyright and the import contracts'
	@echo 'make bench   measure speed: python -m benchmarks $$(ARGS)'
	@echo 'make setup   install requirements.lock and the project into $(VENV); setup-dev adds the tools for tests'
	@echo 'make lock    rewrite the lock files; ARGS=--upgrade takes newer versions, of a week ago at least'
	@echo 'make clean   delete caches; keep $(VENV) and runs/'
	@echo
	@echo 'PYTHON=python3.11 chooses the interpreter for the set-up, VENV=/path another environment.'

train: setup
	@$(BIN)/python train.py $(ARGS)

# The tests of a file stay in one process, which makes their shared fixtures once.
test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow' $(ARGS)

slow: setup-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow $(ARGS)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache --no-logo

bench: setup
	@$(BIN)/python -m benchmarks $(ARGS)

setup:
	@sh -c "$$INSTALL" sh requirements.lock $(CANDIDATES)

setup-dev: setup
	@sh -c "$$INSTALL" sh requirements-dev.lock

# `exclude-dependencies` of pyproject.toml keeps out what holds NumPy below 2.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --exclude-newer '7 days' --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)
lock: setup
	$(COMPILE) --extra learn2learn pyproject.toml --output-file requirements.lock
	$(COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -exec rm -rf {} +
