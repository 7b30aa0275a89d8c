"""What is measured, not tested: speed and accuracy against known truth and against other tools."""
