"""int8: the encoder of a build quantized on the source's own images, and compared with float32 on the gallery."""
