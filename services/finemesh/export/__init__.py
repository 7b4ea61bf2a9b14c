"""The Export service: turns checkpoints into packages, and releases those that behave like the trained model.

`python -m finemesh.export` serves it. May import `finemesh.core`, `finemesh.chassis` and the stubs; no other
service, no Ray, no torch.
"""
