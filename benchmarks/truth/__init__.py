"""How often are figures and verdicts right? Studies against a truth that is known."""
