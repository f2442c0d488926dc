"""What the load generator and the simulator cost, and how well they keep time."""
