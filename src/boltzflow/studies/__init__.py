"""Studies that the library itself does not need: the paper's tables and figures, and the baselines."""
