"""How it is trained: the LightningModule, the run (fit, predict, write), the run directory."""
