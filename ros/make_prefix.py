"""Makes a virtual environment with the ROS 2 wheels an ament prefix: writes setup.bash and its helpers, as ros_workspace does."""

from __future__ import annotations

import sys
from pathlib import Path

from ament_package.templates import configure_file, get_prefix_level_template_names, get_prefix_level_template_path


def main() -> None:
    prefix = Path(sys.prefix)
    values = {
        "CMAKE_INSTALL_PREFIX": str(prefix), "ament_package_PYTHON_EXECUTABLE": sys.executable,
        "SKIP_PARENT_PREFIX_PATH": "SKIP_PARENT_PREFIX_PATH",
    }  # fmt: skip
    for name in get_prefix_level_template_names():
        if name.endswith((".bat", ".bat.in")):
            continue
        template = Path(get_prefix_level_template_path(name))
        text = configure_file(str(template), values) if name.endswith(".in") else template.read_text(encoding="utf-8")
        (prefix / name.removesuffix(".in")).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
