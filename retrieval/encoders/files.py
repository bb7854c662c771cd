"""The names of an encoder's two files, which are those of timm's own Hub format. Loads no torch."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
