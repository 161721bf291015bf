"""`flashrt calibrate`: measure the FP8 scales of a checkpoint on observations and cache them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError, ObservationError

from ._console import open_console

HELP = """measure the FP8 activation scales of a checkpoint and cache them
examples:
  flashrt calibrate --checkpoint DIR --observations frames.npz
  flashrt calibrate --demo-seeds 8       the bundled policy, on scenes of the simulated task

frames.npz holds `images` uint8 [N, views, side, side, 3], `state` float [N, state_dim] in the robot's units and `prompt`
text [N] (numpy.savez of plain arrays; pickled objects are refused). The cache is bound to the full content of the
checkpoint: a fine-tune never gets the scales of its base model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="DIR", help="checkpoint folder (default: the bundled policy)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--observations", type=Path, metavar="FILE.npz", help="recorded observations")
    source.add_argument("--demo-seeds", type=int, metavar="N", help="N first frames of the simulated task")
    parser.add_argument("--percentile", type=float, default=99.9, help="over the observations' maxima (default 99.9)")
    parser.add_argument("--hardware", default="auto", help="auto (default) or an arch, e.g. host")
    parser.add_argument("--profile", help="profile name or file")
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="default ~/.cache/flashrt/calibration")


def run(args: argparse.Namespace) -> int:
    from flashrt_core import load_model

    from ..evaluation.rollout import checkpoint_folder

    folder = checkpoint_folder(args.checkpoint)
    if args.observations is not None:
        observations = read_observations(args.observations)
    else:
        observations = _simulated(args.demo_seeds)
    console = open_console()
    with console.status("loading") as status:
        model = load_model(
            str(folder), num_views=len(observations[0]["images"]), hardware=args.hardware, profile=args.profile,
            use_fp8=True, recalibrate=True, calibration_dir=args.cache_dir, progress=status.update,
        )  # fmt: skip
        model.calibrate(observations, percentile=args.percentile, verbose=True)
    spec = model.precision_spec
    count = len(spec.activation_specs) if spec is not None else 0
    console.print(f"{count} activation scales from {len(observations)} observations, percentile {args.percentile:g}")
    console.print("cached for this checkpoint, hardware and shape; load_model(..., use_fp8=True) will use them")
    return 0


def _simulated(count: int) -> list[dict[str, object]]:
    from ..evaluation.rollout import CALIBRATION_SEEDS, simulated_observations

    if not 1 <= count <= 4096:
        raise ConfigError("--demo-seeds", expected="1..4096", found=count)
    first = CALIBRATION_SEEDS.start
    return simulated_observations(range(first, first + count))


def read_observations(path: Path) -> list[dict[str, object]]:
    """Observations of an .npz file, one dict each. Raises ObservationError naming the array that is wrong."""
    wanted = "arrays images [N, views, side, side, 3], state [N, D] and prompt [N]"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ObservationError(
            f"observations {path}", expected=f"an .npz file with {wanted}", found="no such file"
        ) from None
    except Exception as error:  # zip, header and object-array errors are of many types; all mean: not such a file
        raise ObservationError(
            f"observations {path}", expected=f"an .npz file with {wanted}", found=str(error)
        ) from None
    missing = [name for name in ("images", "prompt") if name not in arrays]
    if missing:
        raise ObservationError(f"observations {path}", expected=wanted, found=f"no array {missing[0]!r}")
    images, prompts = arrays["images"], np.atleast_1d(arrays["prompt"])
    if images.ndim != 5 or images.dtype != np.uint8 or not len(images):
        raise ObservationError(
            "images", expected="uint8 [N >= 1, views, side, side, 3]", found=f"{images.dtype} {images.shape}"
        )
    if prompts.dtype.kind != "U" or len(prompts) not in (1, len(images)):
        raise ObservationError("prompt", expected=f"text, 1 or {len(images)}", found=f"{prompts.dtype} {prompts.shape}")
    state = arrays.get("state")
    if state is not None and (state.ndim != 2 or len(state) != len(images)):
        raise ObservationError("state", expected=f"[{len(images)}, state_dim]", found=str(state.shape))
    return [
        {
            "images": list(images[i]),
            "prompt": str(prompts[i if len(prompts) > 1 else 0]),
            **({} if state is None else {"state": state[i]}),
        }
        for i in range(len(images))
    ]
