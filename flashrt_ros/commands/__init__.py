"""The subcommands of `flashrt`: each module has HELP, add_arguments(parser) and run(args) -> exit code."""

from __future__ import annotations

from . import bag, bench, calibrate, demo, doctor, health, inspect, libero, predict, replay

COMMANDS = {
    "demo": demo,
    "predict": predict,
    "replay": replay,
    "inspect": inspect,
    "calibrate": calibrate,
    "bench": bench,
    "libero": libero,
    "doctor": doctor,
    "health": health,
    "bag": bag,
}
