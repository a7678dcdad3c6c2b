"""Other queues on the same work and the same server, each with its best documented settings.

What each of them keeps of a job, beside our order with its history, stands in `keeps.py`.
"""
