"""The stage of a scene: a backdrop out of focus, and a ground in perspective. Arrays: H height, W width, C
channels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.float32]
GROUNDS: Final = ("wood", "gingham", "meadow", "stone")
BACKDROPS: Final = ("sky", "wall", "garden")


def smooth_noise(random: np.random.Generator, height: int, width: int, cells_y: int, cells_x: int) -> Pixels:
    """float[H, W], -1 to 1 or a little beyond: random values on a coarse grid, smoothly in between."""
    coarse = Image.fromarray(random.uniform(-1, 1, (max(cells_y, 2), max(cells_x, 2))).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def paint_stage(random: np.random.Generator, height: int, width: int, horizon: int) -> tuple[Pixels, Pixels]:
    """float[H, W, C] with the ground from row `horizon` down, and the ground's mean colour, float[C]."""
    canvas = np.empty((height, width, 3), dtype=np.float32)
    canvas[:horizon] = _backdrop(random, str(random.choice(BACKDROPS)), horizon, width)
    ground = _ground(random, str(random.choice(GROUNDS)), height - horizon, width)
    canvas[horizon:] = ground
    band = np.arange(horizon - 3, horizon + 4)  # the far edge is out of focus
    canvas[band] = sum(canvas[band + step] for step in range(-2, 3)) / 5
    return canvas, ground.mean(axis=(0, 1))


def _backdrop(random: np.random.Generator, kind: str, height: int, width: int) -> Pixels:
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    if kind == "sky":
        top, low = np.array([0.36, 0.58, 0.84]), np.array([0.84, 0.90, 0.95])
        clouds = smooth_noise(random, height, width, 4, 7) + 0.6 * smooth_noise(random, height, width, 8, 16)
        cover = np.clip(clouds - 0.15, 0, 1)[..., None]
        sky = top * (1 - down) + low * down
        return (sky * (1 - cover * 0.8) + cover * 0.8).astype(np.float32)
    if kind == "wall":
        tone = np.array(
            random.choice([[0.86, 0.80, 0.70], [0.70, 0.76, 0.78], [0.80, 0.72, 0.72], [0.62, 0.66, 0.60]])
        )
        across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
        glow = 1.08 - 0.22 * (across - random.uniform(-0.8, 0.8)) ** 2 - 0.12 * down
        plaster = 0.025 * smooth_noise(random, height, width, height // 3, width // 3)[..., None]
        return (tone * glow + plaster).astype(np.float32)
    green = np.array([0.30, 0.42, 0.22]) * random.uniform(0.8, 1.15)
    garden = green + 0.10 * smooth_noise(random, height, width, 4, 6)[..., None]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(16):  # lights out of focus
        radius = random.uniform(5, 15)
        centre_y, centre_x = random.uniform(0, height), random.uniform(0, width)
        disc = np.clip(radius - np.hypot(y - centre_y, x - centre_x) + 0.5, 0, 1)[..., None]
        tint = np.array([0.95, 0.90, 0.62]) * random.uniform(0.6, 1.0)
        garden = garden * (1 - 0.28 * disc) + tint * 0.28 * disc
    return garden.astype(np.float32)


def _ground(random: np.random.Generator, kind: str, height: int, width: int) -> Pixels:
    """The ground; its texture grows towards the viewer: depth is 1 / (rows below the horizon)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    near = (y + 0.25 * height) / (1.25 * height)  # 0.2 at the horizon, 1 at the bottom
    across = (x - width / 2) / near / width
    depth = 1 / near
    shade = (0.82 + 0.22 * near)[..., None]
    if kind == "wood":
        tone = np.array(random.choice([[0.66, 0.46, 0.28], [0.50, 0.34, 0.22], [0.76, 0.60, 0.42]]))
        grain = (
            smooth_noise(random, height, width, height, 10) * 0.05
            + smooth_noise(random, height, width, height // 3, 4) * 0.05
        )
        plank = np.floor(depth * 3.2 + 0.3)
        joint = np.exp(-((((depth * 3.2 + 0.3) % 1 - 0.02) / 0.05) ** 2)) * 0.25
        tint = 0.07 * np.sin(plank * 12.9 + random.uniform(0, 6))
        return (tone * (shade + (grain + tint - joint)[..., None])).astype(np.float32)
    if kind == "gingham":
        colour = np.array(random.choice([[0.74, 0.28, 0.28], [0.34, 0.46, 0.68], [0.45, 0.58, 0.42]]))
        soft = np.clip(0.5 + np.sin(across * 34) * 2.2, 0, 1) + np.clip(0.5 + np.sin(depth * 13) * 2.2, 0, 1)
        weave = 0.02 * smooth_noise(random, height, width, height, width)[..., None]
        mixed = 0.94 * (1 - soft[..., None] / 2) + colour * (soft[..., None] / 2)
        return (mixed * shade + weave).astype(np.float32)
    if kind == "meadow":
        tone = np.array([0.34, 0.47, 0.20]) * random.uniform(0.85, 1.15)
        blades = smooth_noise(random, height, width, height // 2, width) * 0.13 * near
        patches = smooth_noise(random, height, width, 6, 8) * 0.10
        return (tone * (shade + (blades + patches)[..., None] * 2)).astype(np.float32)
    tone = np.array(random.choice([[0.62, 0.60, 0.57], [0.72, 0.68, 0.60], [0.48, 0.49, 0.52]]))
    flecks = smooth_noise(random, height, width, height // 2, width // 2) * 0.05
    veins = smooth_noise(random, height, width, 9, 14) * 0.08
    return (tone * shade + (flecks + veins)[..., None]).astype(np.float32)
