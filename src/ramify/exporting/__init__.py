"""Exporting: ONNX graphs, PyTorch programs and model folders."""
