"""The Training service: decides which fine-tune runs when and where, and carries each over losses to its end.

`python -m finemesh.training` serves it. May import `finemesh.core`, `finemesh.chassis` and the stubs; no
other service, no Ray, no torch.
"""
