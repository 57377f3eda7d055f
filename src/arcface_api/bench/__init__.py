"""How fast a service is, here or at a URL. It is known by its address alone, so that any server can be measured.

measure: a step for each number of clients ─▶ load (closed loop) ─▶ connection ─▶ service
"""
