"""`run`: one process measures one endpoint."""
