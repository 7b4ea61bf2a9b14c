"""The server of a package, whatever format it has: `runtime.py` beside this folder runs the model.

seam            what is asked of `runtime.py`
batching        requests that wait together are run together
answering       one answer while it is written
conversation    what a request for an answer may say
chat            /v1/chat/completions and /v1/models
pictures        /detect, /classify and /segment
errors          faults as OpenAI writes them
app             the application: limits, health, metrics, the model loaded behind them
"""
