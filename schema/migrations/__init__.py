"""The migrations: each brings a database from one schema revision to the next. `env` runs them."""
