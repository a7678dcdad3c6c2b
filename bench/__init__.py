"""How fast it is, in ratios to a floor that was measured in the same run: one module for each question."""
