"""A trained network made smaller or taken elsewhere: int8, ONNX, safetensors."""
