"""Thresholds that decide an exit code: `threshold` reads them, `decide` holds them against intervals."""
