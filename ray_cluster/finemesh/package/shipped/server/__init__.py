"""The server of a package, whatever format it has: `runtime.py` beside this folder runs the model.

seam        what is asked of `runtime.py`
batching    requests that wait together are run together
chat        OpenAI's chat, for models of language, with and without pictures
pictures    /detect, /classify and /segment, for models that see alone
errors      faults as OpenAI writes them
app         the application: limits, health, metrics, the model loaded behind them
"""
