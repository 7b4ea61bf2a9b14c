"""The package room: a checkpoint becomes a folder that runs elsewhere, and is proven to behave like the
trained model.

It may import core, finetune, torch, transformers, peft, safetensors and pillow; neither Ray nor gRPC. The
files in `shipped/` travel in every package and import nothing of Finemesh.

    exporting.export_checkpoint    checkpoint -> package folder
    parity.verify_package          package -> ParityReport, by a fresh process
    parity.record_parity           report -> model card and manifest
"""
