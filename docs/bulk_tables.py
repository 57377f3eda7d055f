"""What bulk.md states of speed and memory, from what benchmarks/questions/bulk.py wrote."""

from results import read


def rate_sentence() -> str:
    """How fast the job was beside the bare session and a plain loop, and what memory it took."""
    report, memory = read("bulk-iresnet100.json"), read("bulk-memory.json")
    rates, rss, machine = report["faces_per_second"], memory["rss_mb"], report["machine"]
    ratio, rounds = report["of_plain_loop"], len(report["rounds"])
    return (
        f"On {machine['cpus']} CPUs ({machine['processor']}), an IResNet100 embedded {rates['job']:.1f} face crops a"
        f" second, everything from the loaded model to the finished file included: {report['of_bare']:.1%} of the bare"
        f" session's best rate, and {ratio:.1f} times as many as a plain loop over the insightface package's recogniser"
        f" (medians of {rounds} rounds in one run, [result](../benchmarks/results/bulk-iresnet100.json)).\n\n"
        f"A job of {memory['pictures']:,} small pictures took {rss['after_warm_up']:.0f} MB after warm-up,"
        f" {rss['last_fifth']:.0f} MB at its end, and {rss['most']:.0f} MB while the file was written"
        " ([result](../benchmarks/results/bulk-memory.json))."
    )
