"""Tests start programs and send them signals, which a program inherits as ignored where the runner ignores them."""

import signal

# As under nohup, or in the background of a shell without job control.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
