"""Generated still lifes: a seeded SAM 2 export archive with videos, occlusion, correct visible masks and
class names.

python -m finemesh.data.scenes --out demo.zip --videos 60 --frames 4 --seed 7
"""

from finemesh.data.scenes.archive import SceneOptions, write_scene_archive

__all__ = ["SceneOptions", "write_scene_archive"]
