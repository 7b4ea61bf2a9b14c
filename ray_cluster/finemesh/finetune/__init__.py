"""The training room: model families, the data path, the loop, checkpoints and evaluation.

It may import core, torch, transformers, peft, safetensors, pyarrow, pillow and numpy; neither Ray nor gRPC,
so that it also runs alone: `python -m finemesh.finetune spec.yaml --dataset DIR`.

    rows         canonical Parquet shards to rows
    encoding     rows to token sequences, with the tokens that carry loss
    order        which sample comes when, and the hash that proves it
    batches      samples to tensors, packed or padded
    objectives/  what can be learnt: samples, batches, losses and scores of each task
    attention    attention that keeps packed samples apart
    models       base model, adapters, device
    numerics     precision, quantisation, the scale of the loss
    forward      activations computed twice, noise on embeddings, compiled layers
    optimizer    optimisers, rates, and their state as tensors
    feed         what each step trains on
    run          a run made ready, new or resumed
    step         one optimiser step
    distributed  several processes that train as one
    sharding     models that do not fit whole onto each of them
    saving       validation, checkpoints, the final test
    holdout      rows of the training split to validate on
    patience     when to evaluate, and when to stop early
    loop         `train`: the steps of a run from its start to its result
    checkpoint   state on disk, exact and checked
    prepared     encoded splits on disk, for the next run
    certify      a killed and resumed run compared with one that never stopped
    jsonlines    ledgers and results of items on disk
    evaluation   loss and decisions on held-out rows, baselines, intervals
"""
