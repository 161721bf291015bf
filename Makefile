# Two commands: `make demo` and `make test`. Each does its own set-up in .venv; the second run has none to do.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-long train clean

# The interpreter that makes the virtual environment. Left out: the first of python3, python3.12, .11, .10 that fits.
PYTHON ?=
# More words for pip, for example --extra-index-url with the address of PyTorch's CPU wheels.
PIP_ARGS ?=
# More words for `flashrt demo`, for example DEMO_ARGS="--episodes 5 --splice quintic".
DEMO_ARGS ?=
# More words for pytest, for example TEST_ARGS="test/runtime -x".
TEST_ARGS ?=
# More words for tools/train.py.
TRAIN_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := requirements/constraints.txt
# torch stands first and exactly: the plain name would let pip take another build and gigabytes of CUDA packages.
TORCH := torch==2.13.0
# One line a package while pip works, so that a slow line is seen to be alive. Errors go to stderr as they are.
SHOW := sed -nuE 's/^Collecting ([^ ;]+).*/  \1/p; s/^Installing collected packages:.*/  unpacking .../p'
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c $(CONSTRAINTS) $(PIP_ARGS)

help:  ## this list
	@echo "FlashRT for ROS 2. Begin with: make demo"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(VENV)/.stamp-demo  ## install, then 20 closed-loop episodes with the bundled policy -> demo-out/report.html
	@$(BIN)/flashrt demo $(DEMO_ARGS)

test: $(VENV)/.stamp-test  ## install, then ruff, the test suite and, where ROS 2 can be built, the tests over DDS
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest -n 2 --dist worksteal --timeout 300 -m "not long" $(TEST_ARGS)
	@$(MAKE) --no-print-directory ros-test-here

test-long: $(VENV)/.stamp-test  ## the tests that take minutes (200 episodes, soak, deep fuzz)
	@$(BIN)/python -m pytest -n 2 --dist worksteal --timeout 3600 -m long $(TEST_ARGS)

train: $(VENV)/.stamp-demo  ## train the bundled policy anew into data/policy (minutes on a GPU, hours on a CPU)
	@echo "Training into data/run. TRAIN_ARGS adds options, for example TRAIN_ARGS='--device cuda --compile --workers 15 --minutes 8'."
	$(BIN)/python tools/train.py --out data/run $(TRAIN_ARGS)
	$(BIN)/python tools/export.py data/run --out data/policy
	@echo "Try it: $(BIN)/flashrt demo --checkpoint data/policy"

clean:  ## remove what the other targets made: all environments (.venv*), build, demo-out, ros-demo-out, caches
	rm -rf $(VENV) $(ROS_VENV) $(LIBERO_VENV) build demo-out ros-demo-out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for p in $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11 python3.10); do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then found=$$p; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "make: needs Python 3.10, 3.11 or 3.12; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 || true)." \
	       "Install one (Debian/Ubuntu: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "Making the virtual environment $(VENV) with $$($$found --version) ..."; \
	if ! "$$found" -m venv $(VENV) >/dev/null 2>&1; then \
	  rm -rf $(VENV); \
	  echo "make: $$found cannot make a virtual environment. Install its venv module (Debian/Ubuntu: apt-get install python3-venv)." >&2; exit 1; \
	fi

$(VENV)/.stamp-demo: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "Installing FlashRT, PyTorch and MuJoCo into $(VENV) (about 1 GB on disk; 1-3 minutes on a fast line, once) ..."
	@$(INSTALL) "$(TORCH)" -e '.[demo]' | $(SHOW)
	@touch $@

$(VENV)/.stamp-test: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "Installing FlashRT, PyTorch, MuJoCo and the test tools into $(VENV) (about 1 GB on disk; 1-3 minutes on a fast line, once) ..."
	@$(INSTALL) "$(TORCH)" -e '.[demo,dev]' | $(SHOW)
	@touch $@ $(VENV)/.stamp-demo

include ros/ros.mk
include ros/libero.mk
