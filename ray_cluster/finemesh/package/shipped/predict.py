"""Ask the model of this package: python predict.py ["What is this?"] [--image picture.jpg] [--base DIR]

Models that do not speak take a picture alone. With `--items` it is asked many things: a file with a JSON
object per line, `messages` and `image` as `golden/inputs.jsonl` has them, and what it says goes to `--out`.
It needs what requirements.txt beside this file names.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from decide import decide  # pyright: ignore[reportMissingImports]  (the files beside this one)
from PIL import Image
from runtime import Runner  # pyright: ignore[reportMissingImports]
from safetensors.numpy import save_file

HERE = Path(__file__).parent
_SPEAKS = ("LANGUAGE", "VISION_LANGUAGE")


def said(runner: Any, messages: list[dict[str, Any]], image: Image.Image | None, most_tokens: int) -> str:
    """The answer of a model that speaks."""
    return runner.text(runner.write(runner.prepare(messages, image), most_tokens))


def decided(runner: Any, package: Path, image: Image.Image) -> dict[str, Any]:
    """What a model sees in a picture, as decide.py says."""
    facts = json.loads((package / "manifest.json").read_bytes())["decisions"]
    return decide(runner.task, facts, runner.outputs(runner.prepare([], image)), image.size[::-1])


def ask_items(runner: Any, package: Path, items: Path, out: Path, most_tokens: int) -> None:
    """Ask everything in a file. Pictures are relative to it.

    Writes `out/answers.jsonl`, per line the seconds that an item took, from the picture and words to the
    decision, and the answer in words if it speaks, and `out/decisions.safetensors` with `<index>/<name>`.
    """
    out.mkdir(parents=True, exist_ok=True)
    decisions: dict[str, Any] = {}
    lines = items.read_text(encoding="utf-8").splitlines()
    with (out / "answers.jsonl").open("w", encoding="utf-8") as stream:
        for index, line in enumerate(lines):
            item = json.loads(line)
            image = Image.open(items.parent / item["image"]) if item["image"] else None
            if image:
                image.load()  # a file is not the model's
            began = time.perf_counter()
            answer: dict[str, Any] = {}
            if runner.task in _SPEAKS:
                answer["said"] = said(runner, item["messages"], image, most_tokens)
            elif image:
                decisions |= {f"{index}/{key}": each for key, each in decided(runner, package, image).items()}
            answer["seconds"] = time.perf_counter() - began
            stream.write(json.dumps(answer, ensure_ascii=False) + "\n")
    save_file(decisions, out / "decisions.safetensors")


def peak_bytes() -> int:
    """The most memory that this process had. Where the kernel says it by process, since what `getrusage` says
    on Linux begins with what the process had that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [each for each in status.read_text().splitlines() if each.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, elsewhere


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--base", help="folder or hub id of the base model of an adapter")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--items", type=Path, help="ask everything in this file")
    parser.add_argument("--out", type=Path, default=Path("answers"), help="folder for what it says to them")
    parser.add_argument("--package", type=Path, default=HERE, help="another package of this runtime")
    given = parser.parse_args()
    began = time.perf_counter()
    runner = Runner(given.package, given.base)
    loaded = time.perf_counter() - began
    if given.items:
        ask_items(runner, given.package, given.items, given.out, given.max_new_tokens)
        facts = {"load_seconds": loaded, "peak_memory_bytes": peak_bytes(), "versions": runner.versions}
        print(json.dumps(facts))  # noqa: T201
        return
    image = Image.open(given.image) if given.image else None
    if runner.task in _SPEAKS:
        parts = [{"type": "image", "text": ""}] if image else []
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": given.question}]}]
        print(said(runner, messages, image, given.max_new_tokens))  # noqa: T201
        return
    if image is None:
        parser.error("this model looks at pictures: give one with --image")
    found = decided(runner, given.package, image)
    print(json.dumps({name: each.tolist() for name, each in found.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
