"""File names of a saved encoder: timm's Hub format, and beside it the exported network. Does not import torch."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
EXPORTED_FILE = "onnx/model.onnx"  # where the Hub expects it
