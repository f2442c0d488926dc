"""The search for the highest load that holds an SLO; pure."""
