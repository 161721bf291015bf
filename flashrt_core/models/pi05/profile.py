"""What a Pi0.5 checkpoint expects beyond its weights (views, state, statistics, horizon), each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ...core.paths import confined
from ...core.strict_json import read_json
from ...core.strict_yaml import read_yaml
from ...errors import ConfigError, nearest
from .config_json import from_config_json, openpi_facts
from .dims import Pi05Dims
from .profile_file import parse_profile
from .tensors import check_dims

__all__ = ["PROFILE_FILE", "Pi05Profile", "builtin_profiles", "check_dims", "load_profile"]

PROFILE_FILE = "flashrt_profile.json"
CONFIG_FILE = "config.json"
NORMS = ("quantile", "zscore", "none")
LAYOUTS = ("openpi", "lerobot")
_BUILTIN = Path(__file__).parents[2] / "configs" / "pi05.yaml"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Pi05Profile:
    """dims: the checkpoint's own sizes (load options are applied later with dataclasses.replace).

    layout: whose formulas and files, "openpi" or "lerobot". views: camera names in the order of the model's slots.
    state_norm / action_norm: "quantile", "zscore", or "none" where the file says so. norm_eps: see `norm_stats`.
    delta_action_dims: action dimensions that the model predicts relative to the state of the same index.
    norm_asset: folder below `assets/` with the statistics, None if there is only one. allow_minmax_stats: min and max
    may stand in for absent quantiles. source: decision -> where it was read. ConfigError for a value out of range.
    """

    name: str
    dims: Pi05Dims
    layout: str
    views: tuple[str, ...]
    state_dim: int
    robot_action_dim: int
    state_in_prompt: bool
    state_norm: str
    action_norm: str
    norm_eps: float
    delta_action_dims: tuple[int, ...] = ()
    norm_asset: str | None = None
    allow_minmax_stats: bool = False
    source: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self):
        where = f"profile {self.name!r}"
        for key, choices in (("layout", LAYOUTS), ("state_norm", NORMS), ("action_norm", NORMS)):
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"{where}: {key}", expected=" or ".join(map(repr, choices)), found=repr(getattr(self, key))
                )
        if len(self.views) != self.dims.num_views or len(set(self.views)) != len(self.views):
            raise ConfigError(
                f"{where}: views", expected=f"{self.dims.num_views} different names", found=list(self.views)
            )
        if self.state_dim < 1:
            raise ConfigError(f"{where}: state_dim", expected="an integer >= 1", found=self.state_dim)
        if not 1 <= self.robot_action_dim <= self.dims.action_dim:
            raise ConfigError(
                f"{where}: robot_action_dim", expected=f"1..{self.dims.action_dim}", found=self.robot_action_dim
            )
        if not self.norm_eps > 0:
            raise ConfigError(f"{where}: norm_eps", expected="a number > 0", found=self.norm_eps)
        limit, delta = min(self.robot_action_dim, self.state_dim), self.delta_action_dims
        if len(set(delta)) != len(delta) or not all(0 <= d < limit for d in delta):
            raise ConfigError(
                f"{where}: delta_action_dims", expected=f"different indices 0..{limit - 1}", found=list(delta)
            )


def load_profile(checkpoint: str | Path, profile: str | Path | None = None) -> Pi05Profile:
    """The profile of a checkpoint folder (or of the folder of a checkpoint file).

    Order: the `profile` argument (a built-in name, or the path of a .json/.yaml file), `flashrt_profile.json` in the
    folder, a LeRobot `config.json`. An openpi `config.json` leaves questions open: a ConfigError lists them, together
    with the built-in profiles that would answer them. Sizes that an openpi `config.json` states are compared with the
    profile that is used, wherever it comes from.
    """
    folder = Path(checkpoint).expanduser()
    folder = folder.parent if folder.is_file() else folder
    config = _read_config(folder)
    if profile is not None:
        chosen = _explicit(profile)
    elif (folder / PROFILE_FILE).exists():
        content = read_json(confined(folder, PROFILE_FILE), max_bytes=_MAX_BYTES, error=ConfigError)
        chosen = Pi05Profile(**parse_profile(content, PROFILE_FILE))
    elif config is not None:
        return Pi05Profile(**from_config_json(config, folder, builtin_profiles()))
    else:
        raise ConfigError(
            f"profile of {folder.resolve().name}",
            expected=f"{PROFILE_FILE} or {CONFIG_FILE} in the folder, or the argument profile=",
            found="none",
            hint=f"Built-in profiles: {', '.join(sorted(builtin_profiles()))}.",
        )
    for name, stated in openpi_facts(config).items():
        ours = {"action_horizon": chosen.dims.horizon, "action_dim": chosen.dims.action_dim}[name]
        if ours != stated:
            raise ConfigError(f"{CONFIG_FILE}: {name}", expected=f"{ours} (profile {chosen.name!r})", found=stated)
    return chosen


@cache
def builtin_profiles() -> Mapping[str, Pi05Profile]:
    """The profiles of `flashrt_core/configs/pi05.yaml` by name."""
    content: dict = read_yaml(_BUILTIN)  # our own file: a mapping
    return {name: Pi05Profile(**parse_profile(value, f"built-in {name}")) for name, value in content.items()}


def _explicit(profile: str | Path) -> Pi05Profile:
    if isinstance(profile, str) and profile in builtin_profiles():
        return builtin_profiles()[profile]
    path = Path(profile).expanduser()
    if path.suffix in (".json", ".yaml", ".yml"):
        if path.suffix == ".json":
            content = read_json(path, max_bytes=_MAX_BYTES, error=ConfigError)
        else:
            content = read_yaml(path)
        return Pi05Profile(**parse_profile(content, path.name))
    raise ConfigError(
        f"profile {str(profile)!r}",
        expected="a built-in name, or the path of a .json or .yaml file",
        found="neither",
        hint=nearest(str(profile), builtin_profiles()),
    )


def _read_config(folder: Path) -> Mapping | None:
    if not (folder / CONFIG_FILE).exists():
        return None
    content = read_json(confined(folder, CONFIG_FILE), max_bytes=_MAX_BYTES, error=ConfigError)
    if not isinstance(content, Mapping):
        raise ConfigError(CONFIG_FILE, expected="a JSON object", found=type(content).__name__)
    return content
