"""What a predictions file is worth: metrics and figures, from probabilities alone."""
