# ROS 2 without a ROS install: environment, build and tests in .venv-ros. Included by the Makefile.
.PHONY: ros-env ros-build ros-test ros-test-long ros-test-here

ROS_VENV := .venv-ros
ROS_BIN := $(ROS_VENV)/bin
ROS_REQUIREMENTS := requirements/ros.txt requirements/ros-build.txt requirements/ros-package.txt requirements/ros-constraints.txt
# More words for pytest, for example ROS_TEST_ARGS="test/ros/test_node.py -x".
ROS_TEST_ARGS ?=
# Python started in the checkout must not take the source folder for the install, which has the messages (3.11 and later).
ros-env ros-build ros-test ros-test-long ros-demo: export PYTHONSAFEPATH := 1

ros-env: $(ROS_VENV)/.stamp-env  ## ROS 2 wheels, PyTorch, MuJoCo, colcon and test tools in .venv-ros (Linux x86_64)

ros-build: $(ROS_VENV)/.stamp-build  ## colcon build of messages and package into .venv-ros

ros-test: $(ROS_VENV)/.stamp-build  ## the tests over DDS; they fail, not skip, without rclpy
	@$(ROS_BIN)/pytest --timeout 120 -p no:cacheprovider -m "not long" test/ros $(ROS_TEST_ARGS)

ros-test-long: $(ROS_VENV)/.stamp-build  ## 500 lifecycle cycles over DDS (F67)
	@$(ROS_BIN)/pytest --timeout 3600 -p no:cacheprovider -m long test/ros $(ROS_TEST_ARGS)

# Part of `make test`: without what the build needs they are left out with one line, except on a build machine (CI=true).
ros-test-here:
	@missing=; [ "$$(uname -sm)" = "Linux x86_64" ] || missing="Linux x86_64"; \
	for tool in cmake ninja c++; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then $(MAKE) --no-print-directory ros-test; \
	elif [ "$${CI:-}" = true ]; then echo "make: the ROS tests need$$missing" >&2; exit 1; \
	else echo "The ROS tests were not run: they need$$missing."; fi

$(ROS_BIN)/python:
	@if [ "$$(uname -sm)" != "Linux x86_64" ]; then \
	  echo "make: the ROS 2 wheels exist for Linux x86_64 only; this is $$(uname -sm). Use a ROS 2 install (docs/ros2.md)." >&2; exit 1; \
	fi; \
	for tool in cmake ninja c++; do \
	  if ! command -v $$tool >/dev/null; then \
	    echo "make: needs $$tool to build the messages (Debian/Ubuntu: apt-get install cmake ninja-build g++ python3-dev)." >&2; exit 1; \
	  fi; \
	done; \
	for p in $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11 python3.10); do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then found=$$p; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "make: needs Python 3.10, 3.11 or 3.12, or make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "Making the virtual environment $(ROS_VENV) with $$($$found --version) ..."; \
	"$$found" -m venv $(ROS_VENV)

$(ROS_VENV)/.stamp-env: $(ROS_REQUIREMENTS) requirements/constraints.txt | $(ROS_BIN)/python
	@echo "Installing the ROS 2 wheels, PyTorch and MuJoCo into $(ROS_VENV) (about 1.5 GB on disk; 1-3 minutes on a fast line, once) ..."
	@$(ROS_BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	  -c requirements/constraints.txt -c requirements/ros-constraints.txt $(PIP_ARGS) \
	  -r requirements/ros.txt -r requirements/ros-build.txt -r requirements/ros-package.txt | $(SHOW)
	@touch $@

ROS_SOURCES := CMakeLists.txt package.xml $(wildcard msg/* scripts/* ros/*) \
  $(shell find flashrt_core flashrt_ros launch config -type f -not -path '*/__pycache__/*' 2>/dev/null)

$(ROS_VENV)/.stamp-build: $(ROS_VENV)/.stamp-env $(ROS_SOURCES)
	@echo "Building messages and package into $(ROS_VENV) (10-40 s) ..."
	@mkdir -p build; if ! ros/build.sh $(ROS_VENV) >build/ros.log 2>&1; then \
	  grep -aE 'rror|stderr' -A8 build/ros.log | head -60 >&2; echo "make: colcon build failed; build/ros.log has it all" >&2; exit 1; \
	fi
	@touch $@

# How many episodes `make ros-demo` runs, and where it writes.
EPISODES ?= 20
OUT ?= ros-demo-out
# More words for the demo, for example ROS_DEMO_ARGS="--splice quintic".
ROS_DEMO_ARGS ?=
.PHONY: ros-demo

ros-demo: $(ROS_VENV)/.stamp-build  ## the demo over DDS: simulation, node and recorder as processes; EPISODES=20 OUT=ros-demo-out
	@$(ROS_BIN)/python -m flashrt_ros.ros_demo --episodes $(EPISODES) --out $(OUT) $(ROS_DEMO_ARGS)
