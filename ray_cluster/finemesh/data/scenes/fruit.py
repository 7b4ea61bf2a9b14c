"""Painting one fruit: a lit ellipsoid with a soft edge, a skin, a stem or leaves, and a shadow.

All coordinates are in pixels, x to the right and y down; colours are float RGB, 0 to 1. Arrays: H height, W
width, C channels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a class looks like. Hue in degrees; `aspect` is width to height; `relative_size` to the scene's
    scale.
    """

    hue_degrees: float
    saturation: float
    value: float
    aspect: float
    relative_size: float
    gloss: float
    skin: float
    crown: str


KINDS: Final[dict[str, Kind]] = {
    "tomato": Kind(0, 0.90, 0.82, 1.12, 1.0, 0.85, 0.03, "calyx"),
    "lemon": Kind(56, 0.80, 0.98, 1.34, 0.92, 0.45, 0.07, "tips"),
    "lime": Kind(98, 0.78, 0.66, 1.14, 0.84, 0.5, 0.06, "stem"),
    "blueberry": Kind(224, 0.62, 0.66, 1.06, 0.74, 0.25, 0.08, "star"),
    "orange": Kind(31, 0.95, 1.0, 1.02, 1.08, 0.4, 0.09, "leaf"),
    "plum": Kind(284, 0.62, 0.54, 0.94, 0.96, 0.6, 0.05, "cleft"),
}
_LEAF_RGB: Final = np.array([0.25, 0.45, 0.14], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Look:
    """One individual of a kind: what stays the same in all its frames."""

    rgb: Pixels
    aspect: float
    gloss: float
    skin: Pixels
    crown: str
    tilt_radians: float


@dataclass(frozen=True, slots=True)
class Light:
    """Light of a scene: where it comes from (unit vector; y down, z to the viewer) and what the ground throws
    back.
    """

    direction: Pixels
    bounce_rgb: Pixels


def draw_look(random: np.random.Generator, name: str) -> Look:
    """A fruit of the named class with its own hue, size and marks."""
    kind = KINDS[name]
    hue = (kind.hue_degrees + random.uniform(-5, 5)) / 360 % 1
    saturation = float(np.clip(kind.saturation * random.uniform(0.88, 1.08), 0, 1))
    value = float(np.clip(kind.value * random.uniform(0.86, 1.12), 0, 1))
    skin = random.normal(0, kind.skin, (96, 96)).astype(np.float32)
    coarse = np.kron(random.normal(0, kind.skin, (12, 12)), np.ones((8, 8))).astype(np.float32)
    for axis in (0, 1):  # soften the coarse blotches
        coarse = (
            coarse + np.roll(coarse, 3, axis) + np.roll(coarse, -3, axis) + np.roll(coarse, 5, axis)
        ) / 4
    return Look(
        rgb=np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32),
        aspect=kind.aspect * random.uniform(0.94, 1.06),
        gloss=kind.gloss * random.uniform(0.7, 1.2),
        skin=(skin * 0.6 + coarse).astype(np.float32),
        crown=kind.crown,
        tilt_radians=float(random.uniform(-0.45, 0.45)),
    )


def paint_shadow(
    canvas_HWC: Pixels, centre: tuple[float, float], radius: float, aspect: float, light: Light
) -> None:
    """Darken the ground under a fruit, away from the light, in place."""
    height, width, _ = canvas_HWC.shape
    x0, y0 = centre
    reach_x, reach_y = radius * aspect, radius * 0.42
    shift = -float(light.direction[0]) * radius * 0.75
    ground_y = y0 + radius * 0.86
    for strength, spread, offset in ((0.42, 1.45, shift), (0.45, 0.85, shift * 0.25)):
        rows, columns = _window(
            height, width, (x0 + offset, ground_y), reach_x * spread * 1.7, reach_y * spread * 1.9
        )
        if rows.stop <= rows.start or columns.stop <= columns.start:
            continue
        y_HW, x_HW = _grid(rows, columns)
        distance = ((x_HW - x0 - offset) / (reach_x * spread)) ** 2 + (
            (y_HW - ground_y) / (reach_y * spread)
        ) ** 2
        canvas_HWC[rows, columns] *= (1 - strength * np.exp(-2.2 * distance))[..., None]


def paint_fruit(
    canvas_HWC: Pixels, look: Look, centre: tuple[float, float], radius: float, light: Light
) -> Pixels:
    """Paint a fruit of `radius` (half its height) over the canvas, in place. Returns its coverage, float[H,
    W], 0 to 1.
    """
    height, width, _ = canvas_HWC.shape
    coverage = np.zeros((height, width), dtype=np.float32)
    reach = radius * max(look.aspect, 1) * 1.55 + 2
    rows, columns = _window(height, width, centre, reach, reach)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return coverage
    y_HW, x_HW = _grid(rows, columns)
    cos, sin = np.cos(look.tilt_radians), np.sin(look.tilt_radians)
    dx, dy = x_HW - centre[0], y_HW - centre[1]
    u = ((dx * cos + dy * sin) / (radius * look.aspect)).astype(np.float32)
    v = ((-dx * sin + dy * cos) / radius).astype(np.float32)
    body, colour = _body(look, u, v, light, radius)
    crown, crown_colour = _crown(look, u, v, radius)
    colour = colour * (1 - crown[..., None]) + crown_colour * crown[..., None]
    alpha = np.maximum(body, crown)
    coverage[rows, columns] = alpha
    canvas_HWC[rows, columns] += (colour - canvas_HWC[rows, columns]) * alpha[..., None]
    return coverage


def _window(
    height: int, width: int, centre: tuple[float, float], reach_x: float, reach_y: float
) -> tuple[slice, slice]:
    x, y = centre
    rows = slice(max(int(y - reach_y), 0), min(int(y + reach_y) + 2, height))
    columns = slice(max(int(x - reach_x), 0), min(int(x + reach_x) + 2, width))
    return rows, columns


def _grid(rows: slice, columns: slice) -> tuple[Pixels, Pixels]:
    y_HW, x_HW = np.mgrid[rows, columns].astype(np.float32)
    return y_HW, x_HW


def _body(look: Look, u: Pixels, v: Pixels, light: Light, radius: float) -> tuple[Pixels, Pixels]:
    """Coverage and colour of the flesh in coordinates where its outline is about u² + v² = 1."""
    angle = np.arctan2(v, u)
    rho = np.hypot(u, v)
    if look.crown == "tips":  # a lemon: pointed at both ends of its long axis
        rho = rho / (1 + 0.16 * np.abs(np.cos(angle)) ** 9)
    elif look.crown == "calyx":  # a tomato: faintly lobed
        rho = rho / (1 + 0.025 * np.cos(5 * angle + 0.6))
    elif look.crown == "cleft":
        rho = rho / (1 - 0.07 * np.exp(-((np.abs(angle + np.pi / 2) / 0.22) ** 2)))
    alpha = np.clip((1 - rho) * radius + 0.5, 0, 1)
    scale = np.minimum(1, 0.999 / np.maximum(rho, 1e-3))
    x, y = u * scale, v * scale
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    lx, ly, lz = (float(part) for part in light.direction)
    diffuse = np.clip(x * lx + y * ly + z * lz, 0, 1)
    half = np.array([lx, ly, lz + 1]) / np.linalg.norm([lx, ly, lz + 1])
    gleam = np.clip(x * half[0] + y * half[1] + z * half[2], 0, 1)
    size = look.skin.shape[0]
    skin = look.skin[
        ((y * 0.5 + 0.5) * (size - 1)).astype(int) % size, ((x * 0.5 + 0.5) * (size - 1)).astype(int) % size
    ]
    shade = 0.36 + 0.78 * diffuse**0.85
    occlusion = 1 - 0.38 * np.clip(y, 0, 1) ** 3
    if look.crown == "cleft":
        shade = shade * (1 - 0.22 * np.exp(-(((x + 0.12 * y) / 0.07) ** 2)) * (z > 0.15))
    colour = look.rgb * (shade * occlusion * (1 + skin))[..., None]
    colour = colour + light.bounce_rgb * (0.13 * np.clip(y, 0, 1) * (1 - z))[..., None]
    colour = colour + (look.gloss * (0.75 * gleam**48 + 0.16 * gleam**10))[..., None]
    if look.crown == "star":  # the pale bloom on a blueberry
        colour = colour + 0.10 * (1 - z)[..., None]
    return alpha.astype(np.float32), np.clip(colour, 0, 1.2).astype(np.float32)


def _crown(look: Look, u: Pixels, v: Pixels, radius: float) -> tuple[Pixels, Pixels]:
    """Coverage and colour of what grows on top: calyx, star, leaf or stem."""
    shade = np.clip(0.85 - 0.5 * v - 0.25 * u, 0.5, 1.25)[..., None]
    green = _LEAF_RGB * shade
    if look.crown in {"calyx", "star"}:
        lobes, reach, flat = (5, 0.46, 0.42) if look.crown == "calyx" else (5, 0.30, 0.55)
        y = (v + 0.80) / flat if look.crown == "calyx" else (v + 0.62) / flat
        rho, angle = np.hypot(u, y), np.arctan2(y, u)
        edge = reach * (0.62 + 0.38 * np.cos(lobes * angle + np.pi / 2))
        alpha = np.clip((edge - rho) * radius * 0.8 + 0.4, 0, 1)
        colour = green if look.crown == "calyx" else look.rgb * 0.38 * np.ones_like(green)
        return alpha.astype(np.float32), colour.astype(np.float32)
    if look.crown == "leaf":
        along, across = u * 0.86 - (v + 1.02) * 0.5, u * 0.5 + (v + 1.02) * 0.86
        width = 0.2 * np.clip(1 - ((along - 0.42) / 0.45) ** 2, 0, 1)
        alpha = np.clip((width - np.abs(across)) * radius + 0.3, 0, 1) * (width > 0)
        vein = 1 - 0.25 * np.exp(-((across / 0.025) ** 2))
        return alpha.astype(np.float32), (green * vein[..., None]).astype(np.float32)
    reach = {"stem": 0.13, "cleft": 0.09}.get(look.crown, 0.0)
    y = (v + 0.9) / 0.6
    alpha = np.clip((reach - np.hypot(u, y)) * radius + 0.3, 0, 1) * (reach > 0)
    brown = np.array([0.32, 0.26, 0.12], dtype=np.float32) * shade
    return alpha.astype(np.float32), brown.astype(np.float32)
