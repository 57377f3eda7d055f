"""What `arcface-api bench` does: how fast is the service here, or the one at a URL?

    synthetic faces ─▶ measure: a step for each number of clients ─▶ Measurement ─▶ text, JSON, plot
                          └─▶ load (closed loop) ─▶ connection ─▶ service

It knows a service by its address alone, so that any server can be measured; `benchmarks/` does.
"""
