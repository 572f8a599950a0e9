"""Trained runs as files to carry away: weights, ONNX, eight bits, for a phone, and a card."""
