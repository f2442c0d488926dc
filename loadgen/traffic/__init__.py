"""What is sent in a block, and when."""
