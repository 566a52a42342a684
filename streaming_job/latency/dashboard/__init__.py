"""The local page: a process of its own, so that it can say that the job is stopped.

scrape -> readings -> series, verdict -> feed -> server -> static/
"""
