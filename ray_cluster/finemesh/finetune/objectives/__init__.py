"""What a fine-tune can learn: each objective says what a sample is, how samples become a batch, what the loss
of a batch is, and how the trained model is scored.

To add one, write its file, derive from `Objective`, and name it in `registry`.
"""
