"""The training room: model families, the data path, the loop, checkpoints and evaluation.

It may import core, torch, transformers, peft, safetensors, pyarrow, pillow and numpy; neither Ray nor gRPC,
so that it also runs alone: `python -m finemesh.finetune spec.json --base DIR --dataset DIR --work DIR`.

    rows         canonical Parquet shards to rows
    encoding     rows to token sequences, with the tokens that carry loss
    order        which sample comes when, and the hash that proves it
    batches      samples to tensors, packed or padded
    attention    attention that keeps packed samples apart
    models       base model, adapters, precision, device
    loop         `train`: the optimiser steps
    checkpoint   state on disk, exact and checked
    evaluation   loss and decisions on held-out rows, baselines, intervals
"""
