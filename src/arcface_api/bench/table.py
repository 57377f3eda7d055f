"""A measurement as text for a terminal, throughput also as bars."""

from arcface_api.bench.measure import Measurement, Step

BAR_CELLS = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def text(measurement: Measurement) -> str:
    """What was measured, and a row for each number of clients."""
    most = max(step.faces_per_second for step in measurement.steps)
    titles = f"{'clients':>7} {'faces/s':>9}  {'':<{BAR_CELLS}} {'p50':>10} {'p99':>10} {'mean batch':>11}"
    refusals = [
        f"With {step.who} {sum(step.report.refused.values())} requests were refused (429 or 503): the latencies are of"
        " the others."
        for step in measurement.steps
        if step.report.refused
    ]
    return "\n".join([*about(measurement), "", titles, *(_row(step, most) for step in measurement.steps), *refusals])


def about(measurement: Measurement) -> list[str]:
    """The service in a few lines: what it is, what it runs on, why not on something faster."""
    service = measurement.service
    threads = f"{service.threads} thread{'' if service.threads == 1 else 's'}"
    lines = [
        f"{service.model} on {service.provider} in {service.precision}, {threads}, batches of at most"
        f" {max(service.batch_sizes)}",
        f"self-test: cosine {service.self_test_cosine:.5f} to float32 on the CPU",
    ]
    if service.reason:
        lines.append(f"not faster because: {service.reason}")
    if measurement.process:
        process = measurement.process
        lines.append(f"ready {process.ready_seconds:.1f} s after its start, {process.rss_mb:.0f} MB in memory")
    return lines


def milliseconds(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def _row(step: Step, most: float) -> str:
    batch = "" if step.mean_batch is None else f"{step.mean_batch:.1f}"
    bar = _bar(step.faces_per_second / most)
    return (
        f"{step.clients:>7} {step.faces_per_second:>9.1f}  {bar:<{BAR_CELLS}} {milliseconds(step.p50_ms):>10}"
        f" {milliseconds(step.p99_ms):>10} {batch:>11}"
    )


def _bar(share: float) -> str:
    eighths = round(share * BAR_CELLS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
