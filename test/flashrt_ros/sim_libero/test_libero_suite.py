"""LIBERO's package without its traps: task list, prompt, configuration, meshes, and the order of resets."""

import json
import sys
import types

import numpy as np
import pytest

from flashrt_core.errors import ConfigError
from flashrt_ros.sim.libero import libero_suite
from flashrt_ros.sim.libero.libero_suite import (
    ASSET_FOLDERS,
    LiberoSuite,
    find_assets,
    task_names,
    task_sentence,
    write_config,
)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("pick_up_the_black_bowl_next_to_the_plate", "pick up the black bowl next to the plate"),
        ("KITCHEN_SCENE3_turn_on_the_stove", "turn on the stove"),
        ("KITCHEN_SCENE10_close_the_top_drawer", "close the top drawer"),
        ("LIVING_ROOM_SCENE2_put_the_soup_in_the_basket", "put the soup in the basket"),
    ],
)
def test_sentence_of_a_task_is_its_file_name_without_the_scene(name, sentence):
    assert task_sentence(name) == sentence


@pytest.fixture
def package(tmp_path):
    """The parts of hf-libero's folder that are read."""
    folder = tmp_path / "site/libero/libero"
    (folder / "benchmark").mkdir(parents=True)
    (folder / "benchmark/libero_suite_task_map.py").write_text(
        'import not_installed\nlibero_task_map = {"libero_goal": ["b_task", "a_task"], "libero_10": []}\n'
    )
    return folder


def test_tasks_are_in_the_order_of_the_benchmark_and_nothing_is_imported(package):
    assert task_names(package, "libero_goal") == ["b_task", "a_task"]
    with pytest.raises(ConfigError, match="libero_10"):
        task_names(package, "libero_10")


def test_configuration_is_written_before_the_package_could_ask(package, tmp_path):
    from flashrt_core.inputs import read_yaml

    file = write_config(tmp_path / "own", package)
    places = read_yaml(file)
    assert set(places) == {"benchmark_root", "bddl_files", "init_states", "datasets", "assets"}
    assert json.loads(file.read_text())["bddl_files"] == str(package / "bddl_files")


def make_assets(folder):
    for name in ASSET_FOLDERS:
        (folder / name).mkdir(parents=True)
    return folder


def test_meshes_are_looked_for_in_three_places(package, tmp_path):
    home = tmp_path / "home"
    with pytest.raises(ConfigError) as caught:
        find_assets(None, package, home)
    words = str(caught.value)
    assert str(package / "assets") in words and str(home / ".cache/libero/assets") in words and "--assets" in words
    assert "lerobot/libero-assets" in words
    cached = make_assets(home / ".cache/libero/assets")
    assert find_assets(None, package, home) == cached
    given = make_assets(tmp_path / "given")
    assert find_assets(given, package, home) == given
    with pytest.raises(ConfigError, match="elsewhere"):
        find_assets(tmp_path / "elsewhere", package, home)  # a folder that was named is not replaced by another


class Wrapper:
    """LIBERO's OffScreenRenderEnv, counted."""

    def __init__(self, **fields):
        self.fields, self.seeds, self.env = fields, [], self
        self.sim = types.SimpleNamespace()

    def seed(self, seed):
        self.seeds.append(seed)


class CountedTask:
    """RobosuiteTask: which numbers its resets draw."""

    def __init__(self, wrapper, env, resolution):
        self.wrapper, self.drawn, self.closed = wrapper, None, False

    def reset(self):
        if len(self.wrapper.seeds) > len(getattr(self, "_seen", [])):
            self._seen, self._rng = list(self.wrapper.seeds), np.random.default_rng(self.wrapper.seeds[-1])
        self.drawn = float(self._rng.random())

    def close(self):
        self.closed = True


@pytest.fixture
def suite(package, tmp_path, monkeypatch):
    assets = make_assets(tmp_path / "assets")
    libero, inner, envs = (types.ModuleType(n) for n in ("libero", "libero.libero", "libero.libero.envs"))
    libero.libero, inner._assets_path_cache, envs.OffScreenRenderEnv = inner, None, Wrapper
    for module in (libero, inner, envs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(libero_suite, "package_folder", lambda: package)
    monkeypatch.setattr(libero_suite, "RobosuiteTask", CountedTask)
    made = LiberoSuite("libero_goal", libero_suite.find_files("libero_goal", assets), 256, tmp_path / "config")
    assert inner._assets_path_cache == str(assets) and (tmp_path / "config/config.yaml").exists()
    return made


def test_bddl_file_and_cameras_of_a_task(suite, package):
    fields = suite.begin(1, 7, 0).wrapper.fields
    assert fields["bddl_file_name"] == str(package / "bddl_files/libero_goal/a_task.bddl")
    assert fields["camera_names"] == ["agentview", "robot0_eye_in_hand"] and fields["camera_heights"] == 256
    assert suite.tasks == [("b_task", "b task"), ("a_task", "a task")]


def test_a_trial_is_the_same_in_whatever_order_it_is_run(suite):
    reference = np.random.default_rng(7).random(6)  # seeded once, then one reset per trial: openpi's loop
    assert [suite.begin(0, 7, k).drawn for k in range(4)] == reference[:4].tolist()
    assert suite.begin(0, 7, 5).drawn == reference[5]  # a run that goes on where another stopped
    assert suite.begin(0, 7, 1).drawn == reference[1]  # a trial run again
    first = suite.begin(0, 7, 1)
    assert suite.begin(1, 7, 0).drawn == reference[0] and first.closed  # another task, a generator seeded anew
    assert suite.begin(1, 8, 0).drawn == np.random.default_rng(8).random()


def test_no_demonstrations_in_libero(suite):
    with pytest.raises(ConfigError, match="robosuite_lift"):
        suite.demonstrations()
    with pytest.raises(ConfigError, match="robosuite_lift"):
        suite.demonstration(0)
