"""Forward attention as a ladder of CUDA kernels, from the textbook to the limit of a Hopper card."""
