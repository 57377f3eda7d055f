"""Which threshold? What `arcface-api evaluate` does with labelled pairs.

inputs: pairs, pictures ─▶ backend: local or remote ─▶ run: similarities ─▶ curve ─▶ report: table, JSON, plots, page
"""
