"""The bundled PostgreSQL that serves a checkout when DATABASE_URL is not set, and its client programs."""
