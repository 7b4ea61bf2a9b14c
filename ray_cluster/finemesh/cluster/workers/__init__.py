"""The work itself, one module per kind. Each takes a `Job`, reads and writes S3, and returns an
AttemptResult.
"""
