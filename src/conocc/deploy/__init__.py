"""Out of the package: ONNX, and results as DICOM objects."""
