"""What ray.md computes: costs from rates that a benchmark measured on one machine, and the plan for a billion crops."""

from performance_tables import EXAMPLE_PRICE, MANY, faces_per_core_hour, price_per_million
from results import read

PICTURES = 1_000_000_000
CORES = (64, 512, 2048)
DIM = 512
EXAMPLE_STORAGE_PRICE = 0.02
"""Of a gigabyte for a month, for the worked example: no provider's price."""
PART_ROWS = 20_000


def _job_rate() -> tuple[float, int]:
    """Pictures per second of `arcface-api embed` with an IResNet100, and on how many CPUs."""
    report = read("bulk-iresnet100.json")
    return report["faces_per_second"]["job"], report["machine"]["cpus"]


def _rates() -> list[tuple[str, str, str, float, int]]:
    rate, cpus = _job_rate()
    edgeface = read("peers-edgeface.json")
    through_http = edgeface["peers"]["arcface-api"]["loads"][MANY]["faces_per_second"]
    return [
        ("IResNet100 (antelopev2)", "`arcface-api embed`", "bulk-iresnet100.json", rate, cpus),
        (
            "EdgeFace-XS",
            "`arcface-api serve`, 16 clients",
            "peers-edgeface.json",
            through_http,
            edgeface["machine"]["cpus"],
        ),
    ]


def costs() -> str:
    """A row for each model: the rate that was measured, and what a million and a billion cost by it."""
    rows = [
        "| model | measured | on | faces per core-hour | example: a million | a billion |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model, how, file, rate, cpus in _rates():
        processor = read(file)["machine"]["processor"]
        faces = faces_per_core_hour(rate, cpus)
        price = price_per_million(faces, EXAMPLE_PRICE)
        rows.append(
            f"| {model} | {how}: {rate:.1f}/s ([result](../benchmarks/results/{file})) | {cpus} CPUs, {processor} |"
            f" {faces:,.0f} | {price:.2f} | {price * 1000:,.0f} |"
        )
    return "\n".join(rows)


def example() -> str:
    """The formula with numbers in it."""
    rate, cpus = _job_rate()
    faces = faces_per_core_hour(rate, cpus)
    return (
        f"The example has an invented price of {EXAMPLE_PRICE} per core-hour: {rate:.1f} / {cpus} x 3600 = {faces:,.0f}"
        f" faces per core-hour, so a billion faces take {PICTURES / faces:,.0f} core-hours, and cost"
        f" {PICTURES / faces * EXAMPLE_PRICE:,.0f}."
    )


def billion() -> str:
    """How long, how much, how many files."""
    rate, cpus = _job_rate()
    core_hours = PICTURES / faces_per_core_hour(rate, cpus)
    rows = ["| what | a billion crops |", "| --- | --- |"]
    rows += [
        f"| {cores:,} cores | {core_hours / cores:,.0f} hours ({core_hours / cores / 24:,.1f} days) |"
        for cores in CORES
    ]
    rows.append(f"| parts of {PART_ROWS:,} rows | {PICTURES // PART_ROWS:,} |")
    rows.append(
        f"| one part on one actor with 16 cores | {PART_ROWS / (rate / cpus * 16):,.0f} s, which a lost node costs |"
    )
    for dtype, size in (("float32", 4), ("float16", 2)):
        vectors = PICTURES * DIM * size / 1e12
        rows.append(
            f"| vectors in {dtype} | {PICTURES:,} x {DIM} x {size} bytes = {vectors:.2f} TB; at"
            f" {EXAMPLE_STORAGE_PRICE} per GB and month {vectors * 1000 * EXAMPLE_STORAGE_PRICE:.0f} a month |"
        )
        rows.append(f"| one part in {dtype} | {PART_ROWS * DIM * size / 1e6:.0f} MB |")
    return "\n".join(rows)


def measured() -> str:
    """What Ray costs on one machine, as far as it is known."""
    report = read("ray-data.json")
    rates, seconds, machine = report["pictures_per_second"], report["seconds"], report["machine"]
    spread = {
        engine: "{:.0f} to {:.0f}".format(
            *(pick(one[engine]["pictures_per_second"] for one in report["rounds"]) for pick in (min, max))
        )
        for engine in rates
    }
    return (
        f"**What Ray itself costs is not known well.** {report['pictures']:,} crops on {machine['cpus']} CPUs"
        f" ({machine['processor']}) with {report['recogniser']['name']}, medians of {len(report['rounds'])} interleaved"
        f" rounds: {rates['local']:.1f} a second with `--engine local` ({spread['local']}), {rates['ray']:.1f} with"
        f" `--engine ray` on one node ({spread['ray']}), counted from the first part that was stored; with the start,"
        f" {seconds['local']:.0f} s and {seconds['ray']:.0f} s ([result](../benchmarks/results/ray-data.json)). Other"
        " programs kept the machine busy, so that both are far below what it can do, and the difference is noise."
        " Certain is that all rows were equal, that the start takes longer, and that a row took"
        f" {report['bytes_per_row']:,} bytes, of which 2,048 are the vector. Measure on an idle machine:"
        " `python -m benchmarks.questions.ray_data --faces FOLDER`."
    )
