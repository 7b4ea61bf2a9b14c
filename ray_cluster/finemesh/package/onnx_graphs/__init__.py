"""Models as ONNX graphs: what `formats/onnx.py` makes packages of.

tracing     a module and example inputs -> a file, by torch's current exporter
pictures    detectors, segmenters, classifiers: one graph
language    language models with their cache of keys and values: one graph for prompt and next token
seeing      vision-language: pictures, embeddings of tokens and the language model, a graph each
suitable    what is refused, and why
quantized   graphs with weights in 8 or 4 bits
"""
