"""What else ran on the machine while a block was measured, and whether that spoils it."""
