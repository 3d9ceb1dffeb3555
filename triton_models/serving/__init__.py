"""What runs in Triton (model.py), and what puts versions of it there.

model     the Python backend's model: decodes photos and runs model.onnx
versions  which versions a repository has, and which one it serves
control   tells a running Triton to serve another one, without losing a request
"""
