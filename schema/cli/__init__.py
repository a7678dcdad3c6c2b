"""The terminal: the console script `orders`, a module for each group of commands."""
