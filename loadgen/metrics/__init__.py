"""What a figure is: definitions, the window, the SLO, figures of many requests."""
