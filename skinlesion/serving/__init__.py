"""A trained model in use: load, predict, explain, export, show in a browser."""
