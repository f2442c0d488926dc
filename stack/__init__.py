"""Which stack a command means: containers or plain processes."""
