"""An example or two of each command, which its `--help` ends with.

They stand in one place so that a test can read every one of them with the command's own parser, and the
reference page of the command line can show them all.
"""

from __future__ import annotations

from typing import Final

import typer

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "compile": (
        "finemesh compile coco.zip ./yolo --to yolo-segmentation --split 0.8,0.1,0.1",
        "finemesh compile chats.csv ./chats --to messages --columns prompt=q --columns completion=a",
    ),
    "up": ("finemesh up", "finemesh up --data-dir /var/lib/finemesh --port 8443 --cpus 8 --gpus 1"),
    "doctor": ("finemesh doctor", "finemesh doctor --json"),
    "demo": ("finemesh demo", "finemesh demo --source annotations.zip --output ./package"),
    "dataset import": (
        "finemesh dataset import annotations.zip --id raw",
        "finemesh dataset import chats.csv --columns prompt=question --columns completion=answer",
    ),
    "dataset split": (
        "finemesh dataset split raw --id split --ratios 0.8,0.1,0.1",
        "finemesh dataset split raw --strategy grouped --group-by folder --seed 7",
    ),
    "dataset convert": (
        "finemesh dataset convert split --id items --instruction count",
        "finemesh dataset convert split --id yolo --to yolo-segmentation",
    ),
    "dataset list": ("finemesh dataset list --filter 'state = \"SUCCEEDED\"' --order-by 'create_time desc'",),
    "dataset show": ("finemesh dataset show raw",),
    "dataset ledger": (
        "finemesh dataset ledger raw --disposition quarantined",
        "finemesh dataset ledger raw --reason IMAGE_MISSING --limit 1000 --json",
    ),
    "dataset download": ("finemesh dataset download items ./items",),
    "dataset cancel": ("finemesh dataset cancel raw",),
    "dataset delete": ("finemesh dataset delete raw",),
    "dataset preflight": (
        "finemesh dataset preflight items --model ./llava --rows 3",
        "finemesh dataset preflight items -f spec.yaml --html tokens.html",
    ),
    "dataset validate": (
        "finemesh dataset validate items --html items.html",
        "finemesh dataset validate items --strict --min-rows 100 --max-imbalance 20",
    ),
    "models list": ("finemesh models list",),
    "models show": ("finemesh models show llava", "finemesh models show ./my-model"),
    "train submit": (
        "finemesh train submit --preset quick --model ./llava --dataset items",
        "finemesh train submit -f spec.yaml -o lora.rank=32 --wait",
    ),
    "train list": ("finemesh train list --filter 'state = \"RUNNING\"'",),
    "train show": ("finemesh train show r16",),
    "train watch": ("finemesh train watch r16",),
    "train checkpoints": ("finemesh train checkpoints r16",),
    "train cancel": ("finemesh train cancel r16",),
    "train pause": ("finemesh train pause r16",),
    "train resume": ("finemesh train resume r16",),
    "train priority": ("finemesh train priority r16 10", "finemesh train priority r16 -- -5"),
    "train delete": ("finemesh train delete r16",),
    "train certify": ("finemesh train certify --job r16 --steps 30",),
    "train lint": ("finemesh train lint -f spec.yaml --strict",),
    "train schema": ("finemesh train schema > fine-tune-spec.schema.json",),
    "train presets": ("finemesh train presets",),
    "train preset": ("finemesh train preset balanced --task vision-language > spec.yaml",),
    "train spec": ("finemesh train spec r16 > again.yaml",),
    "train estimate": (
        "finemesh train estimate -f spec.yaml",
        "finemesh train estimate -f spec.yaml -o optimization.micro_batch_size=4",
    ),
    "train history": ("finemesh train history r16",),
    "train logs": ("finemesh train logs r16 -f --tail 20",),
    "sweep create": ("finemesh sweep create -f sweep.yaml --id ranks --wait",),
    "sweep template": ("finemesh sweep template > sweep.yaml",),
    "sweep list": ("finemesh sweep list",),
    "sweep show": ("finemesh sweep show ranks",),
    "sweep watch": ("finemesh sweep watch ranks",),
    "sweep cancel": ("finemesh sweep cancel ranks",),
    "sweep delete": ("finemesh sweep delete ranks --jobs",),
    "runs list": ("finemesh runs list --filter 'metrics.\"val/loss\".best < 1' --limit 20",),
    "runs show": ("finemesh runs show r16",),
    "runs watch": (
        "finemesh runs watch mine",
        "finemesh runs watch mine --metric 'val/*' --metric train/loss",
    ),
    "runs spec": ("finemesh runs spec r16 > again.yaml",),
    "runs compare": (
        "finemesh runs compare r4 r16",
        "finemesh runs compare r4 r16 --metric test/accuracy --html comparison.html --plot curves.png",
    ),
    "runs evaluations": ("finemesh runs evaluations r16",),
    "runs items": ("finemesh runs items r16 test-s100-a1",),
    "runs log-items": ("finemesh runs log-items mine results.jsonl --split test --step 100",),
    "runs curves": (
        "finemesh runs curves r4 r16 --key val/loss",
        "finemesh runs curves r4 r16 --over train/tokens --smooth 1e6 --format csv",
    ),
    "runs artifacts": ("finemesh runs artifacts mine --download ./files --path pictures",),
    "runs export": ("finemesh runs export r4 r16 --format parquet --out ./points",),
    "runs sync": ("finemesh runs sync ./offline-runs --remove",),
    "runs import": (
        "finemesh runs import tensorboard ./logs --experiment baselines",
        "finemesh runs import mlflow ./mlruns",
    ),
    "runs sql": (
        "finemesh runs sql \"SELECT run, last_value FROM summaries WHERE key = 'val/loss' ORDER BY 2\"",
        'finemesh runs sql "SELECT * FROM points" --run r16 --format arrow --output points.arrow',
    ),
    "runs update": ("finemesh runs update r16 --notes @notes.md --tag baseline --label team=vision",),
    "runs finish": ("finemesh runs finish mine --as failed",),
    "runs delete": ("finemesh runs delete mine",),
    "alerts create": (
        "finemesh alerts create --metric train/loss --diverge 0.5 --run r16",
        "finemesh alerts create --metric val/loss --stall 500 --least 0.01",
    ),
    "alerts rules": ("finemesh alerts rules",),
    "alerts delete": ("finemesh alerts delete loss-diverges",),
    "alerts list": ("finemesh alerts list --filter 'open = true'",),
    "export create": (
        "finemesh export create r16 --id colours --format merged",
        "finemesh export create r16 --format onnx --format onnx-int8 --checkpoint last",
    ),
    "export list": ("finemesh export list",),
    "export show": ("finemesh export show colours",),
    "export watch": ("finemesh export watch colours",),
    "export download": ("finemesh export download colours ./colours.zip",),
    "export cancel": ("finemesh export cancel colours",),
    "export delete": ("finemesh export delete colours",),
    "export update": (
        "finemesh export update colours --pin",
        "finemesh export update colours --expire-days 30",
    ),
    "export retention": ("finemesh export retention --keep-last 3 --max-days none",),
    "export push": (
        "finemesh export push colours-gguf ollama://localhost/colours",
        "finemesh export push colours hub://my-team/colours --yes",
    ),
    "export evaluate": ("finemesh export evaluate ./merged ./onnx --dataset ./items --html choice.html",),
    "quota show": ("finemesh quota show --project vision",),
    "quota set": ("finemesh quota set --max-gpus 8 --max-gpu-hours none",),
    "quota list": ("finemesh quota list",),
    "workers list": ("finemesh workers list",),
    "workers show": ("finemesh workers show node-7",),
    "workers drain": ("finemesh workers drain node-7 --wait",),
    "workers undrain": ("finemesh workers undrain node-7",),
    "workers resize": ("finemesh workers resize 2 --cpus 4 --memory-gb 8",),
    "events tail": (
        "finemesh events tail --from 10m",
        "finemesh events tail --subject 'finemesh.v1.training_job.succeeded.*.*' --json",
    ),
    "tracking rebuild": ("finemesh tracking rebuild --data-dir .finemesh",),
}


def add_to(app: typer.Typer) -> None:
    """End the help of every command that `app` has by now with its examples."""
    _add(app, "")
    for group in app.registered_groups:
        if group.typer_instance:
            _add(group.typer_instance, f"{group.name or group.typer_instance.info.name} ")


def _add(app: typer.Typer, noun: str) -> None:
    for command in app.registered_commands:
        examples = EXAMPLES.get(f"{noun}{command.name}", ())
        command.epilog = "\n  ".join(("Examples:", *examples)) if examples else None
