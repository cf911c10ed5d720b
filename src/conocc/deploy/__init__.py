"""Out of the package: ONNX."""
