"""LIBERO's init states from the pickles they ship as to .npz files without objects (F84). Runs apart from any evaluation.

A `.pruned_init` is what torch.save makes of a NumPy array: a zip with a pickle inside. The pickle is not loaded here: its
opcodes are listed and must be exactly the 64 that a float64 array has, with NumPy's own names; the numbers are taken from
them. Anything else is refused, so a file that would run code when it is unpickled is not run and not converted.

    python tools/convert_init_states.py                       # of the hf-libero package in .venv-libero
    python tools/convert_init_states.py --source DIR --out DIR
"""

from __future__ import annotations

import argparse
import pickletools
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError, FlashRTError
from flashrt_ros.sim.libero.env_client import checkout
from flashrt_ros.sim.libero.init_states import KEY, check_init_states, init_state_file

MAX_PICKLE = 64 << 20
SUFFIX = ".pruned_init"
# Opcodes of pickle.dumps(float64 array [N, S], protocol=2), by blocks, with the place of what differs between files.
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_OPCODES = (
    "PROTO GLOBAL BINPUT GLOBAL BINPUT BININT1 TUPLE1 BINPUT GLOBAL BINPUT BINUNICODE BINPUT BINUNICODE BINPUT TUPLE2 BINPUT "
    "REDUCE BINPUT TUPLE3 BINPUT REDUCE BINPUT "  # an empty ndarray: _reconstruct(ndarray, (0,), b"b")
    "MARK BININT1 INT INT TUPLE2 BINPUT "  # its state: version, shape
    "GLOBAL BINPUT BINUNICODE BINPUT NEWFALSE NEWTRUE TUPLE3 BINPUT REDUCE BINPUT "  # dtype("f8", False, True)
    "MARK BININT1 BINUNICODE BINPUT NONE NONE NONE BININT BININT BININT1 TUPLE BINPUT BUILD "  # little-endian
    "NEWFALSE BINGET BINUNICODE BINPUT BINGET TUPLE2 BINPUT REDUCE BINPUT TUPLE BINPUT BUILD STOP"  # C order, the numbers
).split()
_ROWS, _COLUMNS, _DTYPE, _KIND, _ORDER, _DATA, _FIRST_ENCODE, _ENCODE_PUT = 24, 25, 28, 30, 40, 53, 8, 9
_FIXED = {5: 0, 10: "b", 12: "latin1", 23: 1, 39: 3}


def read_array(pickled: bytes, name: str) -> np.ndarray:
    """float64 [N, S] out of the opcodes of a pickled array; nothing is unpickled. Raises ConfigError for anything else."""
    try:
        listed = [(op.name, arg) for op, arg, _ in pickletools.genops(pickled)]
    except Exception as error:  # pickletools raises many kinds for bytes that are no pickle
        raise ConfigError(f"init states {name}", expected="a pickled array", found=type(error).__name__) from None
    ops = [op for op, _ in listed]
    for at in (_ROWS, _COLUMNS):  # a number below 256 has an opcode of its own
        if at < len(ops) and ops[at] in ("BININT1", "BININT2", "BININT"):
            ops[at] = "INT"
    if ops != _OPCODES:
        first = next((i for i, (a, b) in enumerate(zip(ops, _OPCODES, strict=False)) if a != b), min(len(ops), len(_OPCODES)))
        found = f"{listed[first][0]} {str(listed[first][1])[:60]}" if first < len(listed) else "its end"
        raise ConfigError(f"init states {name}", expected=f"a plain float64 array ({_OPCODES[first]})", found=found)
    args = [arg for _, arg in listed]
    named = [str(args[i]) for i in (1, 3, _FIRST_ENCODE, _DTYPE)]
    allowed = [[f"{m} _reconstruct" for m in _MODULES], ["numpy ndarray"], ["_codecs encode"], ["numpy dtype"]]
    good = all(have in want for have, want in zip(named, allowed, strict=True))
    good &= all(args[i] == value for i, value in _FIXED.items()) and (args[_KIND], args[_ORDER]) == ("f8", "<")
    if not good:
        raise ConfigError(f"init states {name}", expected="a plain float64 array", found=f"{', '.join(named)}, {args[_KIND]}")
    rows, columns, data = int(args[_ROWS]), int(args[_COLUMNS]), args[_DATA].encode("latin1", "replace")
    if rows < 0 or columns < 0 or len(data) != rows * columns * 8:
        raise ConfigError(f"init states {name}", expected=f"{rows} x {columns} numbers", found=f"{len(data)} bytes")
    states = np.frombuffer(data, "<f8").reshape(rows, columns).copy()
    check_init_states(states, name)
    return states


def read_file(file: Path) -> np.ndarray:
    """The states of a `.pruned_init`. Raises ConfigError."""
    try:
        with zipfile.ZipFile(file) as archive:
            held = [info for info in archive.infolist() if info.filename.endswith("data.pkl")]
            if len(held) != 1 or held[0].file_size > MAX_PICKLE:
                raise ConfigError(f"init states {file.name}", expected="one data.pkl inside", found=f"{len(held)}")
            pickled = archive.read(held[0])
    except (zipfile.BadZipFile, OSError) as error:
        raise ConfigError(f"init states {file.name}", expected="a zip as torch.save writes it", found=str(error)[:80]) from None
    return read_array(pickled, file.name)


def convert(source: Path, out: Path) -> int:
    """Every SUFFIX file below `source`, a folder per suite, into `out`; returns how many."""
    files = sorted(source.glob(f"*/*{SUFFIX}"))
    if not files:
        raise ConfigError("--source", expected=f"<suite>/<task>{SUFFIX}", found=f"none in {source}", hint="Run: make libero")
    for file in files:
        target = init_state_file(out, file.parent.name, file.name.removesuffix(SUFFIX))
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(target, **{KEY: read_file(file)})
    return len(files)


def main(argv: Sequence[str] | None = None) -> int:
    about, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = checkout() / ".venv-libero"
    packages = next(iter(sorted(made.glob("lib/python3*/site-packages"))), made)
    source, out = packages / "libero/libero/init_files", made / "share/flashrt/init_states"
    parser.add_argument("--source", type=Path, default=source, help="folder of the pickles, one folder a suite")
    parser.add_argument("--out", type=Path, default=out, help="folder of the .npz files")
    args = parser.parse_args(argv)
    try:
        count = convert(args.source, args.out)
    except FlashRTError as error:
        sys.stderr.write(f"convert_init_states: {error}\n")
        return 2
    sys.stdout.write(f"{count} files of init states in {args.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
