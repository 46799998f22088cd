"""The SQL projection of incident-log and config-updates: models, migrations, recorder, queries.

`schema` imports SQLAlchemy only where it needs it: to find a database up to date takes the standard library alone.
"""
