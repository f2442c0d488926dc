"""For all tests."""

import signal

# A suite that was started in the background ignores SIGINT, and so would everything that it starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
