# The simulator of `flashrt libero` in an environment of its own, .venv-libero. Included by the Makefile.
.PHONY: libero libero-test

LIBERO_VENV := .venv-libero
LIBERO_BIN := $(LIBERO_VENV)/bin
# More words for pytest, for example LIBERO_TEST_ARGS="-x -k replay".
LIBERO_TEST_ARGS ?=
LIBERO_ASSETS := $(HOME)/.cache/libero/assets

libero: $(LIBERO_VENV)/.stamp  ## robosuite and LIBERO for `flashrt libero` in .venv-libero (0.3 GB to download, 1.4 GB on disk)
	@if [ ! -d "$(LIBERO_ASSETS)/stable_hope_objects" ]; then \
	  echo "libero_* suites need LIBERO's meshes, which no package holds: fetch lerobot/libero-assets (a dataset repository of the" \
	       "Hugging Face Hub) into $(LIBERO_ASSETS), or name their folder with --assets; robosuite_lift needs nothing more."; fi

libero-test: $(LIBERO_VENV)/.stamp $(VENV)/.stamp-test  ## the tests of the LIBERO bridge that need the real simulator
	@$(BIN)/python -m pytest -n 0 --timeout 600 -m simulator test/flashrt_ros/sim_libero $(LIBERO_TEST_ARGS)

$(LIBERO_BIN)/python:
	@for p in $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11); do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then found=$$p; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "make: the simulator needs Python 3.11 or 3.12, or make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "Making the virtual environment $(LIBERO_VENV) with $$($$found --version) ..."; \
	"$$found" -m venv $(LIBERO_VENV)

$(LIBERO_VENV)/.stamp: requirements/libero.txt tools/convert_init_states.py | $(LIBERO_BIN)/python
	@echo "Installing robosuite 1.4.0, MuJoCo and LIBERO into $(LIBERO_VENV) (1-3 minutes on a fast line, once) ..."
	@$(LIBERO_BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-deps $(PIP_ARGS) \
	  -r requirements/libero.txt | $(SHOW)
	@PYTHONPATH=. $(LIBERO_BIN)/python tools/convert_init_states.py
	@touch $@
