"""`flashrt`: finds the subcommand, runs it and turns a typed error into one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flashrt_core import __version__
from flashrt_core.errors import FlashRTError, nearest

from .commands import COMMANDS

EXIT_OK, EXIT_BUG, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EPILOG = """\
examples:
  flashrt demo                        20 episodes with the bundled policy, report in demo-out/
  flashrt inspect path/to/checkpoint  what is in a checkpoint and how it will be read
  flashrt doctor                      what this machine has and what is missing
  flashrt demo --help                 more examples; every command has some

exit codes: 0 done; 2 bad input, said in one line on stderr; 1 a bug in FlashRT; 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Says the nearest choice where argparse lists all of them; its commands have parsers of this kind, too."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"found {value!r}: {nearest(str(value), map(str, action.choices))}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `flashrt` with all subcommands; importing them loads no model library."""
    parser = _Parser(
        prog="flashrt", description="Vision-Language-Action policies on a robot.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"flashrt {__version__}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, module in COMMANDS.items():
        text, _, examples = module.HELP.partition("\n")
        child = sub.add_parser(
            name, help=text, description=text, epilog=examples.strip("\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(child)
        child.add_argument("--debug", action="store_true", help="show the traceback of an error")
        child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    parser = build_parser()
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        _refuse(parser, args, unknown[0])
    if args.command is None:
        parser.print_help()
        return EXIT_OK
    try:
        return args.run(args) or EXIT_OK
    except KeyboardInterrupt:
        print("flashrt: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `flashrt ... | head`: the reader has what it wanted
        sys.stderr.close()
        return EXIT_OK
    except FlashRTError as error:
        if args.debug:
            raise
        print(f"flashrt {args.command}: {one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except Exception as error:
        if args.debug:
            raise
        kind = type(error).__name__
        print(f"flashrt {args.command}: bug, {kind}: {one_line(error)} (--debug shows where)", file=sys.stderr)
        return EXIT_BUG


def _refuse(parser: argparse.ArgumentParser, args: argparse.Namespace, word: str) -> None:
    """Exit with a usage error that names the nearest option of the innermost command."""
    while choices := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
        name = getattr(args, choices[0].dest, None)
        if name is None:
            break
        parser = choices[0].choices[name]
    options = [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
    parser.error(f"unknown argument {word!r}: {nearest(word, options)}")


def one_line(error: BaseException) -> str:
    """The message without line breaks or other control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())


if __name__ == "__main__":
    sys.exit(main())
