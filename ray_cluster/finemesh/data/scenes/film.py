"""A short film of fruit: who is in it, how they move, and what is seen of each in every frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from finemesh.data.render import seeded
from finemesh.data.rle import Mask, from_array
from finemesh.data.scenes.fruit import KINDS, Light, Look, Pixels, draw_look, paint_fruit, paint_shadow
from finemesh.data.scenes.stage import paint_stage

WIDTH_PX, HEIGHT_PX = 320, 240
_PAN_PX = 20
_SIDE_PX = 16


@dataclass(frozen=True, slots=True)
class Actor:
    """A fruit and its path: from `start` to `end` (x, y of its centre in pixels) along a bow of `bow_px`."""

    class_name: str
    look: Look
    radius_px: float
    start: tuple[float, float]
    end: tuple[float, float]
    bow_px: float

    def centre(self, time: float) -> tuple[float, float]:
        """Where it is at `time`, 0 to 1; it starts and stops gently."""
        eased = time * time * (3 - 2 * time)
        x = self.start[0] + (self.end[0] - self.start[0]) * eased
        y = self.start[1] + (self.end[1] - self.start[1]) * eased + self.bow_px * np.sin(np.pi * eased)
        return float(x), float(y)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: the picture, and what is visible of each actor."""

    picture: Image.Image
    masks: tuple[Mask, ...]


def film(seed: int, number: int, frames: int, class_names: Sequence[str]) -> Iterator[Frame]:
    """The frames of film `number`, with one actor per class name; equal for equal arguments."""
    random = seeded("film", seed, number)
    horizon = int(random.uniform(0.28, 0.42) * HEIGHT_PX)
    stage, ground_rgb = paint_stage(random, HEIGHT_PX, WIDTH_PX + _PAN_PX, horizon)
    side = random.choice([-1, 1]) * random.uniform(0.25, 0.6)
    direction = np.array([side, -random.uniform(0.45, 0.75), 0.7], dtype=np.float32)
    light = Light((direction / np.linalg.norm(direction)).astype(np.float32), ground_rgb.astype(np.float32))
    warmth = random.uniform(-0.05, 0.06)
    tone = np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32) * np.float32(random.uniform(0.86, 1.12))
    actors = _cast(random, class_names, horizon)
    pan = np.linspace(0, 1, max(frames, 2)) * random.uniform(-_PAN_PX, _PAN_PX) / 2 + _PAN_PX / 2
    for index in range(frames):
        offset = int(pan[index])
        canvas = stage[:, offset : offset + WIDTH_PX].copy()
        masks = _paint(canvas, actors, index / max(frames - 1, 1), light)
        yield Frame(_develop(canvas, tone, random), masks)


def _cast(random: np.random.Generator, class_names: Sequence[str], horizon: int) -> list[Actor]:
    """Actors side by side, each on its own depth, most of them moving across a neighbour."""
    places = (np.arange(len(class_names)) + 0.5) / len(class_names) * (WIDTH_PX - 2 * _SIDE_PX) + _SIDE_PX
    random.shuffle(places)
    actors: list[Actor] = []
    for class_name, place in zip(class_names, places, strict=True):
        depth = random.uniform(0.12, 0.95)
        radius = (22 + 24 * depth) * KINDS[class_name].relative_size * random.uniform(0.88, 1.12)
        ground_y = horizon + depth * (HEIGHT_PX - horizon - 14)
        y = min(ground_y, HEIGHT_PX - 6) - radius * 0.55
        x = float(place) + random.uniform(-14, 14)
        step = random.normal(0, 46)
        if random.random() < 0.1:  # now and then one leaves the picture
            step = (WIDTH_PX + 80 - x) if x > WIDTH_PX / 2 else -(x + 80)
        end = (x + step, y + random.uniform(-6, 6))
        actors.append(
            Actor(class_name, draw_look(random, class_name), radius, (x, y), end, random.uniform(-5, 5))
        )
    return actors


def _paint(canvas_HWC: Pixels, actors: Sequence[Actor], time: float, light: Light) -> tuple[Mask, ...]:
    """Paint the actors from the back to the front; the mask of each is what no later one covers."""
    visible: list[npt.NDArray[np.bool_]] = [np.zeros(canvas_HWC.shape[:2], dtype=np.bool_)] * len(actors)
    feet = [actor.centre(time)[1] + actor.radius_px for actor in actors]
    for index in sorted(range(len(actors)), key=lambda i: feet[i]):
        actor = actors[index]
        centre = actor.centre(time)
        paint_shadow(canvas_HWC, centre, actor.radius_px, actor.look.aspect, light)
        covered = paint_fruit(canvas_HWC, actor.look, centre, actor.radius_px, light) > 0.5
        visible = [mask & ~covered for mask in visible]
        visible[index] = covered
    return tuple(from_array(mask) for mask in visible)


def _develop(canvas_HWC: Pixels, tone: Pixels, random: np.random.Generator) -> Image.Image:
    """Light, a gentle roll-off of the highlights, darker corners and grain, as a camera would."""
    height, width, _ = canvas_HWC.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    corners = 1 - 0.16 * (x * x + y * y)[..., None] ** 1.5
    exposed = canvas_HWC * tone * corners
    rolled = np.where(exposed > 0.85, 0.85 + 0.15 * np.tanh((exposed - 0.85) / 0.15), exposed)
    grain = random.normal(0, 0.010, (height, width, 1)).astype(np.float32)
    return Image.fromarray((np.clip(rolled + grain, 0, 1) * 255).astype(np.uint8))
