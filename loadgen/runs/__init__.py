"""What a run leaves: its folder, manifest and records; and going on with one."""
