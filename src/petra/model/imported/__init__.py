"""An ONNX file as a model: read, and written in PyTorch's layers, so that stages can treat it."""
