"""What a predictions file is worth: metrics, intervals, calibration, from probabilities alone."""
