"""Whether this worker gets on, in the log and for its supervisor."""
