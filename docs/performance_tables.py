"""The tables of performance.md, from what the benchmarks wrote."""

from results import read

EXAMPLE_PRICE = 0.05
"""Of a core-hour, for the worked example: no provider's price."""
MANY = "16"
"""Clients of the load that costs are stated for."""


def peers() -> str:
    """A row for each way to serve the model: throughput, latency, memory; and how it compares."""
    report = read("peers-iresnet100.json")
    rows = [
        "| | 16 clients: faces/s | p50, ms | p99, ms | 1 client: p50, ms | memory, MB | ready after, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, peer in report["peers"].items():
        if "16" in peer["loads"]:
            many, one = peer["loads"]["16"], peer["loads"]["1"]
            figures = [many["faces_per_second"], many["p50_ms"], many["p99_ms"], one["p50_ms"], peer["rss_mb"]]
            shown = " | ".join(f"{figure:.1f}" for figure in figures)
            rows.append(f"| {name}: {peer['about']} | {shown} | {peer['ready_seconds']:.1f} |")
        else:
            loads = ", ".join(f"{load}: {figures['faces_per_second']:.1f}" for load, figures in peer["loads"].items())
            one = peer["loads"]["batch 1"]
            rows.append(f"| {name}: {peer['about']} | {loads} | | | {one['p50_ms']:.1f} | {peer['rss_mb']:.1f} | |")
    return "\n".join(rows)


def ratios() -> str:
    """How many times better the service is than each peer."""
    report = read("peers-iresnet100.json")
    rows = [
        "| against | throughput, 16 clients | p99, 16 clients | p50, 1 client | memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in report["ratios"].items():
        if "rss" in result:
            many, one = result["16 clients"], result["1 clients"]
            rows.append(f"| {name} | {many['throughput']}x | {many['p99']}x | {one['p50']}x | {result['rss']}x |")
        else:
            rows.append(f"| {name} | {result['throughput']:.1%} | | | |")
    return "\n".join(rows)


def batch_sizes() -> str:
    """A row for each number of clients: what the service serves of what the bare session could."""
    report = read("batch-sizes-iresnet100.json")
    rows = [
        "| clients | faces/s | p50, ms | p99, ms | mean batch | of the bare session at that batch | at batch 8 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for clients, result in report["service"].items():
        figures = " | ".join(f"{result[name]:.1f}" for name in ("faces_per_second", "p50_ms", "p99_ms", "mean_batch"))
        rows.append(f"| {clients} | {figures} | {result['of_bare_at_mean_batch']:.0%} | {result['of_bare_at_8']:.0%} |")
    return "\n".join(rows)


def machine() -> str:
    """What it was measured on."""
    report = read("peers-iresnet100.json")
    result = report["machine"]
    sets = ", ".join(result["instruction_sets"])
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    return (
        f"{result['cpus']} CPUs of {result['processor']} ({sets}), Python {result['python']}, {packages};"
        f" {report['rounds']} interleaved rounds of {report['seconds']:g} s a load."
    )


def faces_per_core_hour(faces_per_second: float, cpus: int) -> float:
    """Of a machine that is busy for the whole hour."""
    return faces_per_second / cpus * 3600


def price_per_million(faces_per_core_hour: float, core_hour_price: float) -> float:
    """Of a million faces, in the unit of the price."""
    return core_hour_price * 1e6 / faces_per_core_hour


def cost() -> str:
    """A row for each service, with an IResNet100 and with EdgeFace-XS: faces per core-hour, and an example's price."""
    rows = [
        "| model | service | faces/s | faces per core-hour | example: a million faces |",
        "| --- | --- | --- | --- | --- |",
    ]
    for model, file in (("IResNet100", "peers-iresnet100.json"), ("EdgeFace-XS", "peers-edgeface.json")):
        report = read(file)
        for name, peer in report["peers"].items():
            if MANY in peer["loads"]:
                rate = peer["loads"][MANY]["faces_per_second"]
                faces = faces_per_core_hour(rate, report["machine"]["cpus"])
                price = price_per_million(faces, EXAMPLE_PRICE)
                rows.append(f"| {model} | {name} | {rate:.1f} | {faces:,.0f} | {price:.3f} |")
    return "\n".join(rows)


def cost_example() -> str:
    """The formula with numbers in it."""
    report = read("peers-iresnet100.json")
    rate = report["peers"]["arcface-api"]["loads"][MANY]["faces_per_second"]
    cpus = report["machine"]["cpus"]
    faces = faces_per_core_hour(rate, cpus)
    price = price_per_million(faces, EXAMPLE_PRICE)
    return (
        f"For example, at an invented price of {EXAMPLE_PRICE} per core-hour: {rate:.1f} faces/s on {cpus} cores are"
        f" {rate:.1f} / {cpus} x 3600 = {faces:,.0f} faces per core-hour, so a million faces cost {EXAMPLE_PRICE} x"
        f" 1,000,000 / {faces:,.0f} = {price:.2f}. A service that is busy a third of the time costs three times as"
        f" much: {3 * round(price, 2):.2f}."
    )
