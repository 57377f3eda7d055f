"""What pgvector.md states as measured, from what benchmarks/questions/pgvector.py wrote."""

from typing import Any

from results import read

DEFAULT_EF_SEARCH = "40"


def _models() -> dict[str, Any]:
    models: dict[str, Any] = read("pgvector.json")["models"]
    return models


def _tables(kind: str) -> list[dict[str, Any]]:
    """A kind of table of each model."""
    return [model["tables"][kind] for model in _models().values()]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def found_table() -> str:
    """A row for each model: how often the most similar other picture shows the same person."""
    rows = [
        "| recogniser | pictures | questions | `vector`, exact | `halfvec`, exact | `halfvec`, HNSW |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, model in _models().items():
        vector, half = model["tables"]["vector"], model["tables"]["halfvec"]
        shares = (vector["recall@1"], half["recall@1"], half["hnsw"][DEFAULT_EF_SEARCH]["recall@1"])
        shown = " | ".join(f"{share:.2%}".replace("%", " %") for share in shares)
        rows.append(f"| {name.removesuffix('.onnx')} | {model['rows']:,} | {model['questions']:,} | {shown} |")
    return "\n".join(rows)


def index_table() -> str:
    """A row for each `hnsw.ef_search`: what the index finds, and how much it reads for that."""
    exact = _tables("halfvec")[0]["pages_a_query"]["exact"]
    rows = [
        "| `hnsw.ef_search` | found of the ten nearest: `vector` | `halfvec` | and the same person first | pages that a"
        f" query looks at (exact: {exact:,}) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for ef in _tables("halfvec")[0]["hnsw"]:
        found = [min(table["hnsw"][ef]["recall@10"] for table in _tables(kind)) for kind in ("vector", "halfvec")]
        found.append(min(table["hnsw"][ef]["recall@1"] for table in _tables("halfvec")))
        pages = _tables("halfvec")[0]["pages_a_query"][f"hnsw {ef}"]
        shown = " | ".join(f"{share:.1%}".replace("%", " %") for share in found)
        default = " (default)" if ef == DEFAULT_EF_SEARCH else ""
        rows.append(f"| {ef}{default} | {shown} | {pages:,} |")
    return "\n".join(rows)


def sizes_table() -> str:
    """A row for each way to store the numbers."""
    rows = [
        "| column | of one embedding | of its row, all in all | HNSW index, a row | exact search reads | and takes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = {
        "vector": "`vector(512)`",
        "vector, kept inline": "`vector(512)`, [kept in the row](#toast)",
        "halfvec": "`halfvec(512)`",
    }
    for kind, name in names.items():
        tables = _tables(kind)
        one, time = tables[0], _mean([table["time_of_exact_vector"]["exact"] for table in tables])
        cells = (f"{one['pg_column_size']:,} bytes", f"{one['bytes_a_row']:,}", f"{one['index_bytes_a_row']:,}")
        share = "1" if time == 1 else f"{time:.2f} of it"
        rows.append(f"| {name} | {' | '.join(cells)} | {one['pages_a_query']['exact']:,} pages | {share} |")
    return "\n".join(rows)


def toast_sentence() -> str:
    """Whether the rows of `vector(512)` go out of line, and what that costs."""
    vector, inline = _tables("vector"), _tables("vector, kept inline")
    one = vector[0]
    times = _mean([1 / table["time_of_exact_vector"]["exact"] for table in inline])
    chunks, pages = one["toast_chunks_a_row"], one["pages_a_query"]["exact"]
    return (
        f"An embedding of {one['pg_column_size']:,} bytes makes its row longer than 2 kB, so PostgreSQL moves it into"
        f" the table's TOAST table, in {chunks:g} pieces: all embeddings of both models lay there. What remains of"
        f" the row takes {one['main_bytes_a_row']} bytes, the pieces {one['toast_bytes_a_row']:,}. An exact search"
        f" looks up each embedding in that table: {pages:,} pages instead of"
        f" {inline[0]['pages_a_query']['exact']:,}, and {times:.1f} times the time of rows that were kept whole."
    )


def filters_sentence() -> str:
    """What a filter and a second model cost an index."""
    rare = [model["rare_filter"] for model in _models().values()]
    mixed = read("pgvector.json")["one index for all"]
    off, on = (_mean([each[scan] for each in rare]) for scan in ("off", "strict_order"))
    return (
        f"With a filter that one row in a hundred passes, a query for ten found {off:.1f} of them, and {on:.1f} with"
        f" `hnsw.iterative_scan = strict_order`. (With one index for the vectors of {mixed['models']} models of equal"
        f" number, a query for ten of one found {mixed['off']['found_of_10']:.1f}; a recipe that few rows have, such as"
        " that of `unsure` pictures, would fare as the rare filter. With a partition for each recipe there is no such"
        " filter.)"
    )


def machine_sentence() -> str:
    """Where this was measured."""
    report = read("pgvector.json")
    machine = report["machine"]
    return (
        f"{report['postgresql']}, pgvector {report['pgvector']}, one core ({machine['processor']}), everything"
        " in memory; medians of queries that ran in turn, on a machine that had other work: only their ratios count"
        " ([result](../benchmarks/results/pgvector.json))."
    )
