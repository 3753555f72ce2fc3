"""The history of the schema, run by Alembic. A version that was released is never changed again."""
