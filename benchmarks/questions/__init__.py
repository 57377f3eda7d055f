"""One program per question: `python -m benchmarks.questions.peers --help`."""
