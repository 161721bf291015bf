"""LIBERO's own suites out of the hf-libero package; runs in the simulator process only.

The package asks questions on the terminal when it is imported without a configuration, and downloads when its meshes are
missing. Neither happens here: the configuration is written before the import, into a folder of ours that
LIBERO_CONFIG_PATH names, and the meshes are looked for before anything that needs them.
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError

from .protocol import CAMERAS
from .simulator import RobosuiteTask

# hf-libero utils/download_utils.py, download_assets_from_huggingface: what it takes for a complete download.
ASSET_FOLDERS = ("articulated_objects", "stable_scanned_objects", "turbosquid_objects", "stable_hope_objects")
FETCH = "hf download lerobot/libero-assets --repo-type dataset --local-dir ~/.cache/libero/assets"


def package_folder() -> Path:
    """site-packages/libero/libero, without importing it. Raises ConfigError when hf-libero is not installed."""
    spec = find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("hf-libero", expected="the package", found="none in the simulator's Python", hint="Run: make libero")
    return Path(next(iter(spec.submodule_search_locations))) / "libero"


def write_config(folder: Path, package: Path) -> Path:
    """config.yaml as hf-libero reads it (libero/__init__.py, get_default_path_dict); JSON is YAML."""
    import json

    file = folder / "config.yaml"
    places = {
        "benchmark_root": package, "bddl_files": package / "bddl_files", "init_states": package / "init_files",
        "datasets": folder / "datasets", "assets": package / "assets",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({name: str(path) for name, path in places.items()}), encoding="utf-8")
    return file


def find_assets(given: Path | None, package: Path, home: Path) -> Path:
    """The folder with meshes and textures. ConfigError says in one sentence what to fetch and where it was looked for."""
    places = [given] if given is not None else [package / "assets", home / ".cache/libero/assets"]
    for place in places:
        if all((place / name).is_dir() for name in ASSET_FOLDERS):
            return place
    raise ConfigError(
        "LIBERO's meshes and textures", expected=f"{', '.join(ASSET_FOLDERS)} in {' or '.join(map(str, places))}", found="none",
        hint=f"They are not part of the hf-libero package; fetch them once with `{FETCH}`, or name their folder with --assets",
    )  # fmt: skip


def task_names(package: Path, suite: str) -> list[str]:
    """File names of a suite's tasks in the benchmark's order (task order 0, the default, is the order of the file)."""
    file = package / "benchmark/libero_suite_task_map.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "libero_task_map":
            names = ast.literal_eval(node.value).get(suite)
            if names:
                return [str(name) for name in names]
    raise ConfigError(f"suite {suite}", expected=f"an entry in {file.name} of hf-libero", found="none")


def task_sentence(name: str) -> str:
    """The prompt: the file name in words, for LIBERO-100 without its scene (benchmark/__init__.py,
    grab_language_from_filename)."""
    if name[:1].isupper():
        skip = 8 if "SCENE10" in name else 7
        name = name[name.find("SCENE") + skip :]
    return " ".join(name.split("_"))


def find_files(suite: str, assets: Path | None) -> tuple[Path, list[str], Path]:
    """(package folder, names of the suite's tasks, folder of meshes), without importing anything. Raises ConfigError."""
    package = package_folder()
    return package, task_names(package, suite), find_assets(assets, package, Path.home())


class LiberoSuite:
    """One of LIBERO's suites; one task is loaded at a time."""

    def __init__(self, suite: str, files: tuple[Path, list[str], Path], resolution: int, config: Path):
        """files: of `find_files`. config: folder for hf-libero's configuration."""
        package, names, assets = files
        self.tasks = [(name, task_sentence(name)) for name in names]
        self._suite, self._resolution, self._package = suite, resolution, package
        write_config(config, package)
        import libero.libero

        libero.libero._assets_path_cache = str(assets)  # what get_assets_path returns when it is set
        self._number, self._task, self._done = -1, None, 0

    def begin(self, task: int, seed: int, resets: int) -> RobosuiteTask:
        """The scene after `resets` + 1 resets since the generator was seeded.

        The generator places what an init state does not hold (openpi main.py: "seed seems to affect object positions
        even when using fixed initial state"), so trial k of the reference has had k + 1 resets. Going through them again
        makes a trial the same wherever and in whatever order it is run.
        """
        if task != self._number:
            self._load(task)
        if self._done > resets or self._seed != seed:
            self._start(seed)
        while self._done <= resets:
            self._task.reset()
            self._done += 1
        return self._task

    def demonstrations(self) -> list[np.ndarray]:
        raise ConfigError("policy demo-replay", expected="a suite with demonstrations: robosuite_lift", found=self._suite)

    def demonstration(self, number: int) -> RobosuiteTask:
        self.demonstrations()

    def _load(self, task: int) -> None:
        from libero.libero.envs import OffScreenRenderEnv

        if self._task is not None:
            self._task.close()
        wrapper = OffScreenRenderEnv(
            bddl_file_name=str(self._package / "bddl_files" / self._suite / f"{self.tasks[task][0]}.bddl"),
            camera_heights=self._resolution, camera_widths=self._resolution, camera_names=list(CAMERAS),
            use_camera_obs=False,
        )  # fmt: skip
        self._task, self._number, self._seed, self._done = RobosuiteTask(wrapper, wrapper.env, self._resolution), task, None, 0

    def _start(self, seed: int) -> None:
        self._task.wrapper.seed(seed)  # bddl_base_domain.py seed: NumPy's global generator
        self._seed, self._done = seed, 0
