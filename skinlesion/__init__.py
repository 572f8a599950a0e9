"""Skin lesion classification with soft attention and metadata on HAM10000."""
