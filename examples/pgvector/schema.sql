-- Face embeddings in PostgreSQL 16 or newer with pgvector 0.8 or newer. docs/pgvector.md explains every line.
-- For 4-byte numbers write vector(512) and vector_ip_ops; for another model, its number of numbers.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE IF NOT EXISTS faces (
    id text NOT NULL,                    -- the picture: `id` of the Parquet file
    model text NOT NULL,
    fingerprint text NOT NULL,           -- vectors may be compared only if it is equal
    recipe text NOT NULL,                -- they compare well only if it is equal
    norm real NOT NULL,                  -- length of the raw embedding
    embedding halfvec(512) NOT NULL
        CONSTRAINT embedding_has_length_1 CHECK (inner_product(embedding, embedding) BETWEEN 0.99 AND 1.01),
    PRIMARY KEY (recipe, id)
) PARTITION BY LIST (recipe);            -- a partition, with an index, for each recipe: models never mix

CREATE INDEX IF NOT EXISTS faces_embedding ON faces USING hnsw (embedding halfvec_ip_ops);
