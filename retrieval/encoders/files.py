"""File names of a saved encoder, as in timm's Hub format. Does not import torch."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
