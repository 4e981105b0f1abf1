"""What a step, a run and a start cost. Ratios are of times measured in turns."""
