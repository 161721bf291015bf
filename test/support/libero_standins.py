"""Stand-ins for the meshes of libero_object: boxes of about the right size, so that its tasks compile, step and succeed.

They look like nothing LIBERO shows: they are for the code around them (suite, init states, seeding, success), not for policies.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("articulated_objects", "stable_scanned_objects", "turbosquid_objects", "stable_hope_objects", "scenes", "textures")
# Object -> half size in m and colour. The seven of "pick up the alphabet soup and place it in the basket".
BOXES = {
    "alphabet_soup": ((0.033, 0.033, 0.042), "0.8 0.2 0.1 1"), "salad_dressing": ((0.03, 0.02, 0.07), "0.9 0.8 0.2 1"),
    "cream_cheese": ((0.05, 0.03, 0.015), "0.9 0.9 0.95 1"), "milk": ((0.035, 0.035, 0.09), "0.9 0.9 0.9 1"),
    "tomato_sauce": ((0.033, 0.033, 0.042), "0.7 0.1 0.1 1"), "butter": ((0.05, 0.025, 0.015), "0.95 0.9 0.5 1"),
}  # fmt: skip
BASKET = (0.09, 0.06)  # half width and height
SCENE = """<mujoco model="floor">
  <asset>
    <texture file="../textures/floor.png" type="2d" name="texplane"/>
    <texture file="../textures/wall.png" type="2d" name="tex-wall"/>
    <material name="floorplane" texture="texplane" texuniform="true"/>
  </asset>
  <worldbody>
    <body name="floor" pos="0 0 0">
      <geom name="floor" type="plane" size="3 3 .125" material="floorplane" condim="3" group="1"/>
    </body>
    <light pos="1 1 1.5" dir="-0.2 -0.2 -1" directional="true" castshadow="false"/>
    <camera mode="fixed" name="frontview" pos="1 0 0.65" quat="0.56 0.43 0.43 0.56"/>
    <camera mode="fixed" name="agentview" pos="0.9 0 0.65" quat="0.62 0.34 0.34 0.62"/>
  </worldbody>
</mujoco>
"""


def make_standins(folder: Path) -> Path:
    """Write them below `folder` in LIBERO's layout; returns it."""
    from PIL import Image

    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "scenes/libero_floor_base_style.xml").write_text(SCENE)
    for name, grey in (("light-gray-floor-tile", 150), ("light-gray-plaster", 200)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(folder / f"textures/{name}.png")
    for name, (half, colour) in BOXES.items():
        _write(folder / f"stable_hope_objects/{name}", name, _box((0, 0, 0), half, colour), half)
    wide, high = BASKET
    walls = _box((0, 0, -high), (wide, wide, 0.005), "0.5 0.35 0.2 1")
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        half = (0.004 if x else wide, 0.004 if y else wide, high)
        walls += _box((x * wide, y * wide, 0), half, "0.5 0.35 0.2 1")
    region = f'<site name="contain_region" type="box" pos="0 0 0" quat="1 0 0 0" size="{wide} {wide} {high}" rgba="0 0 1 0"/>'
    _write(folder / "stable_scanned_objects/basket", "basket", walls + region, (wide, wide, high))
    return folder


def _box(at: tuple, half: tuple, colour: str) -> str:
    words = f'type="box" pos="{_numbers(at)}" size="{_numbers(half)}" rgba="{colour}"'
    seen = f'<geom {words} group="1" contype="0" conaffinity="0" mass="0"/>'
    return f'<geom {words} group="0" density="100" friction="0.95 0.3 0.1"/>{seen}'


def _write(folder: Path, name: str, parts: str, half: tuple) -> None:
    sites = {"bottom_site": (0, 0, -half[2]), "top_site": (0, 0, half[2]), "horizontal_radius_site": (half[0], half[1], 0)}
    marks = "".join(f'<site name="{n}" pos="{_numbers(at)}" size="0.005" rgba="0 0 0 0"/>' for n, at in sites.items())
    folder.mkdir(parents=True, exist_ok=True)
    body = f'<body><body name="object" pos="0 0 0">{parts}</body>{marks}</body>'
    (folder / f"{name}.xml").write_text(f'<mujoco model="{name}"><worldbody>{body}</worldbody></mujoco>\n')


def _numbers(values: tuple) -> str:
    return " ".join(f"{v:g}" for v in values)
