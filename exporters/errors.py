"""What is wrong with how an exporter was started."""


class UsageError(Exception):
    """Something the user can mend; the text says what. The exporter prints it without a traceback and exits with 2."""
