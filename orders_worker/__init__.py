"""Rows out, handler in: the process that claims orders and works them."""
