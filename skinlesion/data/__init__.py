"""Where samples come from: metadata table → split → image cache → batches."""
