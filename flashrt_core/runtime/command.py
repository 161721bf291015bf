"""CommandSpec: what each dimension of a command means and how fast it may change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError

Limit = float | tuple[float, ...] | None


@dataclass(frozen=True)
class CommandSpec:
    """The dimensions of an action vector.

    A dimension is a position command unless listed: `delta_dims` hold one period's motion (velocity-like: repeating the
    command keeps moving), `discrete_dims` hold a choice such as an open/close gripper (never blended, never ramped).
    period_s: control period T. v_max, a_max: limits in units/s and units/s^2 of the position (a delta d means d / T),
    one number or one per dimension, None = no limit. rest_ticks: length of the ramp to rest when there is no a_max.
    Raises ConfigError (a ValueError).
    """

    period_s: float = 0.05
    delta_dims: tuple[int, ...] = ()
    discrete_dims: tuple[int, ...] = ()
    v_max: Limit = None
    a_max: Limit = None
    rest_ticks: int = 4

    def __post_init__(self) -> None:
        if not (math.isfinite(self.period_s) and self.period_s > 0):
            raise ConfigError("period_s", expected="a finite number > 0", found=self.period_s)
        for name in ("delta_dims", "discrete_dims"):
            dims = tuple(getattr(self, name))
            if any(isinstance(d, bool) or int(d) != d or d < 0 for d in dims) or len(set(dims)) != len(dims):
                raise ConfigError(name, expected="distinct indices >= 0", found=dims)
            object.__setattr__(self, name, tuple(int(d) for d in dims))
        both = set(self.delta_dims) & set(self.discrete_dims)
        if both:
            raise ConfigError("delta_dims and discrete_dims", expected="no dimension in both", found=sorted(both))
        for name in ("v_max", "a_max"):
            value = getattr(self, name)
            if value is not None and not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
                raise ConfigError(name, expected="finite numbers > 0, or None", found=value)
            if value is not None and np.ndim(value):
                object.__setattr__(self, name, tuple(float(x) for x in value))
        if self.rest_ticks < 1:
            raise ConfigError("rest_ticks", expected=">= 1", found=self.rest_ticks)

    def check_dims(self, dims: int) -> None:
        """Raise ConfigError when an action of `dims` numbers does not fit this spec."""
        top = max((*self.delta_dims, *self.discrete_dims), default=-1)
        if top >= dims:
            raise ConfigError("delta_dims/discrete_dims", expected=f"indices below {dims}", found=top)
        for name in ("v_max", "a_max"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != dims:
                raise ConfigError(name, expected=f"one number or {dims}", found=f"{len(value)} numbers")

    def mask(self, dims: tuple[int, ...], count: int) -> np.ndarray:
        """bool [count], true at `dims`."""
        out = np.zeros(count, dtype=bool)
        out[list(dims)] = True
        return out

    def limit(self, value: Limit, count: int) -> np.ndarray:
        """float64 [count]; infinite where there is no limit and at discrete dimensions."""
        out = np.full(count, np.inf)
        if value is not None:
            out[:] = value
        out[list(self.discrete_dims)] = np.inf
        return out
