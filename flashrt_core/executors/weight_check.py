"""Compares a source with what a spec reads: names, shapes and dtypes, before any tensor is loaded."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

from ..core.safetensors_file import nearest_key
from ..core.safetensors_header import FLOAT_DTYPES
from ..errors import CheckpointError
from .weight_spec import Item, ModelWeightSpec, WeightSource, iterate, subkey

SHOWN = 10  # names in one message


def spec_keys(spec: ModelWeightSpec) -> dict[str, tuple[tuple[int, ...] | None, tuple[str, ...] | None]]:
    """Every stored name that the spec reads -> (expected shape or None, accepted dtypes or None), in loading order."""
    out: dict[str, tuple[tuple[int, ...] | None, tuple[str, ...] | None]] = {}
    for item, prefix, layer in iterate(spec):
        for template, shape in _templates(item):
            key = subkey(template, prefix, layer)
            if key not in out or out[key][0] is None:
                out[key] = (shape, item.dtypes)
    return out


def _templates(item: Item) -> Iterable[tuple[str, tuple[int, ...] | None]]:
    if isinstance(item.key, str):
        yield item.key, item.shape if not isinstance(item.shape, dict) else item.shape.get(item.key)
    elif hasattr(item.key, "source_keys"):
        shapes = item.shape or {}
        for template in item.key.source_keys():
            yield template, shapes.get(template) if isinstance(shapes, dict) else shapes


def check_spec(source: WeightSource, spec: ModelWeightSpec) -> None:
    """CheckpointError for missing names (the first 10, with the nearest that exist) and for shapes and dtypes."""
    expected = spec_keys(spec)
    missing = [key for key in expected if not source.has(key)]
    if missing:
        present = list(source.keys()) if hasattr(source, "keys") else []
        raise CheckpointError(
            f"tensor {missing[0]}" if len(missing) == 1 else f"{len(missing)} tensors",
            expected="in the checkpoint",
            found="missing" if len(missing) == 1 else "missing: " + _names(missing),
            hint=f"{missing[0]}: {nearest_key(missing[0], present)}" if present else None,
        )
    for key, (shape, dtypes) in expected.items():
        check_tensor(source, key, shape, dtypes)


def check_tensor(
    source: WeightSource, key: str, shape: tuple[int, ...] | None, dtypes: tuple[str, ...] | None = None
) -> None:
    """CheckpointError naming the tensor, what was wanted and what is there. Reads nothing if the source has `info`."""
    if shape is None and dtypes is None:
        return
    if hasattr(source, "info"):
        info = source.info(key)
        have_shape, have_dtype = tuple(info.shape), info.dtype
    else:
        have_shape, have_dtype = tuple(source.get(key).shape), None
    if shape is not None and have_shape != tuple(shape):
        raise CheckpointError(f"tensor {key}: shape", expected=list(shape), found=list(have_shape))
    if dtypes is not None and have_dtype is not None and have_dtype not in dtypes:
        raise CheckpointError(f"tensor {key}: dtype", expected=f"one of {', '.join(dtypes)}", found=have_dtype)


def check_complete(
    source: WeightSource,
    spec: ModelWeightSpec,
    *,
    ignore: Iterable[str] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    dtypes: tuple[str, ...] = FLOAT_DTYPES,
) -> None:
    """The source holds every tensor that the spec reads, of the right shape and dtype, and no other.

    ignore: names or `fnmatch` patterns that may be there without being read. shapes: name -> shape for tensors whose
    items state none (for Pi0.5 `models.pi05.tensors.expected_tensors(dims)`). dtypes: accepted safetensors dtypes.
    Extra tensors usually mean that the checkpoint is of another model, so they are an error.
    """
    check_spec(source, spec)
    expected = spec_keys(spec)
    for key, (shape, own) in expected.items():
        check_tensor(source, key, shape or (shapes or {}).get(key), own or dtypes)
    if not hasattr(source, "keys"):
        return
    patterns = list(ignore)
    extra = [k for k in source.keys() if k not in expected and not any(fnmatch.fnmatchcase(k, p) for p in patterns)]
    if extra:
        raise CheckpointError(
            f"tensor {extra[0]}" if len(extra) == 1 else f"{len(extra)} tensors",
            expected="only tensors that the model reads",
            found="extra: " + _names(extra),
            hint=f"{extra[0]}: {nearest_key(extra[0], expected)}",
        )


def _names(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
