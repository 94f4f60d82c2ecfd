"""Networks that leave the house: ONNX graphs, PyTorch programs, model folders, answers, a page to try them."""
