"""Where vectors are kept and compared: Redis, or PostgreSQL with pgvector."""
