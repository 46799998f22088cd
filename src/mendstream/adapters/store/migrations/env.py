"""What Alembic runs around the migrations: on the connection that `schema` has opened, in its transaction."""

from __future__ import annotations

from alembic import context

from mendstream.adapters.store.models import Base
from mendstream.adapters.store.schema import VERSION_TABLE, render_item

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
