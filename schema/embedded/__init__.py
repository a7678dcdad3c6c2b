"""The bundled PostgreSQL that serves a checkout when DATABASE_URL is not set."""
