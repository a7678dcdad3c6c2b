"""What every process here has: connection, loop, settings, logs, signals, sockets."""
