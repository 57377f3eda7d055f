"""Which threshold? What `arcface-api evaluate` does with labelled pairs.

pairs · pictures ─▶ backend (local, remote) ─▶ run: similarities ─▶ curve ─▶ report: table, JSON, plots, page
"""
