"""The load generator's own error on this machine."""
