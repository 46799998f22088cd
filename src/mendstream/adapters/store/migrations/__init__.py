"""Alembic's migrations of the store. Run by `schema`, which gives the connection; there is no .ini."""
