"""What the embedded backends ``onnxruntime`` and ``pytorch`` share.

Runs inside a Triton Python-backend process, in the server's environment. Imports nothing of the helpers package, and nothing
heavier than NumPy: the frameworks belong to the two backends.
"""
