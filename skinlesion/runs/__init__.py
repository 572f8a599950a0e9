"""The ground floor: a run's directory and what lies in it. No torch, no training."""
