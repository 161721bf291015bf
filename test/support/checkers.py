"""Source checkers of the contract tests: each takes a path inside the repository and its text, and lists violations."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flashrt_core", "flashrt_ros")

# DESIGN: flashrt_ros -> flashrt_core.api -> frontends -> models -> blocks -> hardware -> ops. An import goes to a lower
# rank or stays in its own part. executors and core serve the frontends, runtime serves hardware and the control loop.
RANK = {
    "errors": 0, "types": 0, "version": 0, "_kernels": 0, "ops": 1, "core": 2, "runtime": 3, "hardware": 4, "executors": 4,
    "blocks": 5, "models": 6, "frontends": 7, "inspect": 8, "api": 8, "bench": 9, "": 10,
}  # fmt: skip
# What flashrt_ros may use of flashrt_core.
PUBLIC = {"", "api", "errors", "version", "inspect", "runtime", "hardware", "bench"}
FRAMEWORKS = {"torch", "jax", "rclpy"}
# The thin layer of flashrt_ros that is ROS; everything else there runs, and is tested, without it.
ROS_FILES = {
    "flashrt_ros/" + name + ".py"
    for name in (
        "bond", "convert", "endpoints", "graph_watch", "launching", "main", "node", "params", "qos", "bags/recorder", "sinks",
        "status", "transitions", "sim/bridge", "sim/operator", "sim/libero/ros_sim",
    )
}  # fmt: skip
CODE_RUNNERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "subprocess",
    "pty",
}
MAX_LINES = 450


def source_files(*folders: str, suffix: str = ".py") -> list[Path]:
    """Files of the repository that git tracks or would track, below `folders` ("." for all), by the end of their name."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        names = [ROOT / name for name in done.stdout.splitlines()]
    else:  # an unpacked archive, no git
        names = [p for folder in folders for p in (ROOT / folder).rglob("*")]
    return sorted(p for p in set(names) if p.name.endswith(suffix) and p.is_file())


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, text: str, *, module_level: bool = False) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import. module_level: only what runs when the file is imported."""
    name = module_name(path)
    package = name.split(".") if path.endswith("__init__.py") else name.split(".")[:-1]
    tree = ast.parse(text)
    nodes = _at_import(tree) if module_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes outside function bodies and outside `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_import(child)


def part(dotted: str) -> str:
    """The part of flashrt_core that a name belongs to; '' is the package itself."""
    names = dotted.split(".")
    return names[1] if len(names) > 1 and names[1] in RANK else ""


def check_arrow(path: str, text: str) -> list[str]:
    """Imports follow the arrow; flashrt_core knows nothing of flashrt_ros; nothing imports tools, tests or the CLI."""
    bad = []
    for line, name in imports(path, text):
        top = name.split(".")[0]
        if top in ("tools", "test", "support"):
            bad.append(f"{path}:{line}: imports {name}: packages do not depend on {top}/")
        if path.startswith("flashrt_core/"):
            here = part(module_name(path))
            if top == "flashrt_ros":
                bad.append(f"{path}:{line}: imports {name}: flashrt_core never imports flashrt_ros")
            elif top == "flashrt_core" and part(name) != here and RANK[part(name)] >= RANK[here]:
                bad.append(f"{path}:{line}: {here or 'flashrt_core'} imports {name}: against the arrow")
        elif top == "flashrt_core" and part(name) not in PUBLIC:
            bad.append(f"{path}:{line}: imports {name}: not part of what flashrt_ros may use")
        elif name.startswith("flashrt_ros.commands") and not path.startswith(
            ("flashrt_ros/commands/", "flashrt_ros/cli")
        ):
            bad.append(f"{path}:{line}: imports {name}: only the CLI uses its subcommands")
    return bad


def check_framework_imports(path: str, text: str) -> list[str]:
    """models, blocks, hardware (but not hardware/host/ops.py) and ops/table.py load no framework; rclpy only ROS_FILES."""
    light = ("flashrt_core/models/", "flashrt_core/blocks/", "flashrt_core/hardware/", "flashrt_core/ops/table.py")
    free = not path.startswith(light) or path == "flashrt_core/hardware/host/ops.py"
    banned = set() if path in ROS_FILES else {"rclpy"} if free else FRAMEWORKS
    found = imports(path, text, module_level=True)
    return [f"{path}:{line}: imports {name} at module level" for line, name in found if name.split(".")[0] in banned]


HARDWARE_WORDS = re.compile(r"\b(hardware|arch|sm_?\d+|capability|is_cuda|cuda_available|is_available|backend_name)\b")


def check_hardware_fork(path: str, text: str) -> list[str]:
    """No decision about hardware, and no `hasattr`, in blocks and pipelines: the difference is another file."""
    if not re.match(r"flashrt_core/(blocks/|models/\w+/pipeline_)", path):
        return []
    bad = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
            bad.append(f"{path}:{node.lineno}: {node.func.id} in a forward")
        test = getattr(node, "test", None) or getattr(node, "subject", None)
        if test is not None and HARDWARE_WORDS.search(ast.unparse(test)):
            bad.append(f"{path}:{node.lineno}: decides on hardware: {ast.unparse(test)}")
    return bad


def check_code_runners(path: str, text: str) -> list[str]:
    """Nothing that can run code from data: pickle and kin, eval, exec, os.system, torch.load, unsafe yaml or np.load."""
    bad = [f"{path}:{line}: imports {name}" for line, name in imports(path, text) if name.split(".")[0] in CODE_RUNNERS]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen") or called.startswith("os.exec"):
            bad.append(f"{path}:{node.lineno}: calls {called}")
        if called in ("torch.load", "joblib.load", "torch.jit.load", "yaml.unsafe_load", "yaml.full_load"):
            bad.append(f"{path}:{node.lineno}: calls {called}")
        if called == "yaml.load" and "Safe" not in options.get("Loader", ""):
            bad.append(f"{path}:{node.lineno}: yaml.load without SafeLoader")
        if called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
            bad.append(f"{path}:{node.lineno}: {called} without allow_pickle=False")
    return bad


def check_environment(path: str, text: str) -> list[str]:
    """Settings arrive as arguments: no environment variable is read, but ROS's own in one file."""
    if path == "flashrt_ros/security.py":
        return []
    bad = []
    for node in ast.walk(ast.parse(text)):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        imported = isinstance(node, ast.ImportFrom) and node.module == "os" and {a.name for a in node.names}
        if name in ("os.environ", "os.environb", "os.getenv") or (imported and imported & {"environ", "getenv"}):
            bad.append(f"{path}:{node.lineno}: reads the environment")
    return bad


def check_print(path: str, text: str) -> list[str]:
    """Only the CLI prints."""
    if path.startswith(("flashrt_ros/cli.py", "flashrt_ros/commands/")):
        return []
    return [
        f"{path}:{node.lineno}: print outside the CLI"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def check_length(path: str, text: str) -> list[str]:
    """A file past MAX_LINES holds a second concept."""
    count = text.count("\n") + 1
    return [f"{path}: {count} lines, more than {MAX_LINES}"] if count > MAX_LINES else []


def check_top_docstring(path: str, text: str) -> list[str]:
    """A file says in its first sentence what it is for."""
    return [] if not text.strip() or ast.get_docstring(ast.parse(text)) else [f"{path}: no docstring at its top"]


# Words about where this was written, in pieces so that this file is clean itself.
_PIECES = (("/wo", "rk/"), ("work", "place"), ("hel", "per session"), ("python", "hosted"), ("/opt/", "wheels"))
PRIVATE = re.compile("|".join("".join(pair) for pair in _PIECES))


def check_private_words(path: str, text: str) -> list[str]:
    """No path or word of the machine this was written on."""
    return [
        f"{path}:{i}: {found.group()!r}"
        for i, line in enumerate(text.splitlines(), 1)
        if (found := PRIVATE.search(line))
    ]
