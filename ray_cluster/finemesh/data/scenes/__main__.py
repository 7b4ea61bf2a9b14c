"""Write a scene archive from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finemesh.core.errors import FinemeshError
from finemesh.data.scenes import SceneOptions, write_scene_archive


def main() -> int:
    defaults = SceneOptions()
    parser = argparse.ArgumentParser(prog="python -m finemesh.data.scenes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the ZIP to write")
    parser.add_argument("--videos", type=int, default=defaults.videos)
    parser.add_argument("--frames", type=int, default=defaults.frames, help="annotated frames per video")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    arguments = parser.parse_args()
    try:
        options = SceneOptions(videos=arguments.videos, frames=arguments.frames, seed=arguments.seed)
        write_scene_archive(arguments.out, options)
    except FinemeshError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
