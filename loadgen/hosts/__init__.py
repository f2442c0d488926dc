"""Who starts and stops engines: supervisor, Docker, or nobody (engines that already run)."""
