"""Other queues on the same work and the same server, each with its best documented settings.

Both delete a job when it is done; ours keeps the order with its history, and shows what is being worked on.
"""
