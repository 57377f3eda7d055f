"""Finds pairs of stored pictures that are at least as similar as the threshold: `python duplicates.py --threshold 0.9`.

Each picture asks the index for its nearest, so that a million pictures take a million searches, and not half a trillion
comparisons.
"""

import argparse

from database import connect
from thresholds import in_words, known

RECIPES = "SELECT recipe, model, count(*) FROM faces GROUP BY 1, 2 ORDER BY 3 DESC"
PAIRS = """
SELECT least(one.id, other.id), greatest(one.id, other.id), max(similarity) AS similarity
FROM faces AS one CROSS JOIN LATERAL (
    SELECT id, -(embedding <#> one.embedding) AS similarity FROM faces
    WHERE recipe = %(recipe)s AND id <> one.id
    ORDER BY embedding <#> one.embedding LIMIT %(nearest)s
) AS other
WHERE one.recipe = %(recipe)s AND similarity >= %(threshold)s
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""


def main() -> None:
    """Print the pairs of each recipe."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threshold", type=float, help="default: what is known of the model")
    parser.add_argument("--nearest", type=int, default=20, help="of each picture, that are looked at")
    parser.add_argument("--shown", type=int, default=5, help="pairs that are printed")
    arguments = parser.parse_args()
    with connect() as connection:
        connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", (str(max(100, 2 * arguments.nearest)),))
        for recipe, model, faces in connection.execute(RECIPES).fetchall():
            threshold = arguments.threshold or max((similarity for _, similarity in known(model)), default=None)
            if threshold is None:
                print(in_words(model, None, faces))
                threshold = 0.0
            asked = {"recipe": recipe, "threshold": threshold, "nearest": arguments.nearest}
            pairs = connection.execute(PAIRS, asked).fetchall()
            print(f"{len(pairs):,} pairs of {faces:,} pictures of {model} are at least {threshold} alike. The first:")
            for one, other, similarity in pairs[: arguments.shown]:
                print(f"  {similarity:.3f}  {one}  {other}")


if __name__ == "__main__":
    main()
