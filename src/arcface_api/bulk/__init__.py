"""Many pictures, one file of embeddings; a job that was killed is continued.

    SOURCES ──listing──▶ inputs ──engine──▶ rows ──parts──▶ FILE.parts/ ──output──▶ FILE

`run` joins them (docs/adr/0022-bulk.md says what survives a kill). pyarrow, of the extra `bulk`, is imported only here.
"""
