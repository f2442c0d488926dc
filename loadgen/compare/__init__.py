"""Two runs side by side: the same engine in two versions or on two machines, or two engines of two runs."""
