"""The generated parts of migrating.md: from benchmarks/questions/migrating.py and deepface_feed.py."""

from collections import defaultdict
from collections.abc import Mapping

from results import read

Cosine = Mapping[str, Mapping[str, float]]


def roads_table() -> str:
    """How close to InsightFace's vector: a row for each thing that a caller may still have."""
    report = read("migrating.json")
    of = {each["name"].removesuffix(".onnx"): each["cosine"] for each in report["recognisers"]}
    heads = [f"{name}: median cosine | lowest" for name in of]
    rows = [f"| sent | {' | '.join(heads)} |", f"| --- {'| --- | --- ' * len(of)}|"]
    rows += [
        f"| {row} | {' | '.join(_figures(found, row) for found in of.values())} |" for row in next(iter(of.values()))
    ]
    about = (
        f"{report['people']} people of LFW, InsightFace {report['insightface']}, labelled landmarks, float32"
        " ([result](../benchmarks/results/migrating.json)). In LFW's photos, faces are about as large as in the crop."
    )
    return "\n".join([*rows, "", about])


def deepface_table() -> str:
    """How close to deepface's vector: a row for each model and size of crops, columns for each way to send them."""
    report = read("deepface-feed.json")
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    sent: dict[str, None] = {}
    for row in report["cosine"]:
        model, crop, what = row.split("; ")
        found[model, crop].append(_figures(report["cosine"], row))
        sent[what] = None
    heads = [f"{what}: median cosine | lowest" for what in sent]
    rows = [f"| model | crop | {' | '.join(heads)} |", f"| --- | --- {'| --- | --- ' * len(sent)}|"]
    rows += [f"| {model} | {crop} | {' | '.join(figures)} |" for (model, crop), figures in found.items()]
    about = f"{report['people']} people, deepface {report['deepface']}"
    about += " ([result](../benchmarks/results/deepface-feed.json))."
    return "\n".join([*rows, "", about])


def _figures(found: Cosine, row: str) -> str:
    return f"{found[row]['p50']:.4f} | {found[row]['min']:.4f}"
