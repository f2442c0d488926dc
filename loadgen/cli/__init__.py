"""The command line, `bakeoff COMMAND`: one file a command; `options` for what several of them share."""
