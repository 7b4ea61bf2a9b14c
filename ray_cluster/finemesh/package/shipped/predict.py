"""Ask the model of this package: python predict.py ["What is this?"] [--image picture.jpg] [--base DIR]

Needs what requirements of `runtime.py` beside this file are. Models that do not speak take a picture alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from decide import decide  # pyright: ignore[reportMissingImports]  (the files beside this one)
from PIL import Image
from runtime import Runner  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--base", help="folder or hub id of the base model of an adapter")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    given = parser.parse_args()
    runner = Runner(HERE, given.base)
    image = Image.open(given.image) if given.image else None
    if runner.task in ("LANGUAGE", "VISION_LANGUAGE"):
        parts = [{"type": "image", "text": ""}] if image else []
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": given.question}]}]
        inputs = runner.prepare(messages, image)
        print(runner.text(runner.write(inputs, given.max_new_tokens)))  # noqa: T201
        return
    if image is None:
        parser.error("this model looks at pictures: give one with --image")
    facts = json.loads((HERE / "manifest.json").read_bytes())["decisions"]
    found = decide(runner.task, facts, runner.outputs(runner.prepare([], image)), image.size[::-1])
    print(json.dumps({name: each.tolist() for name, each in found.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
