"""How requests reach the database: a pool of connections, shared statements, wake-ups after a commit."""
