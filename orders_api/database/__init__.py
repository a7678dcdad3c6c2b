"""How requests reach the database: a pool, shared statements, the wake-ups that follow a commit."""
