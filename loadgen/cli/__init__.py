"""The command line, `python -m loadgen COMMAND`: one file a command; `options` for what several of them share."""
