"""Engines: what runs the network of an encoder. ONNX Runtime, OpenVINO and torch give the same vectors."""
