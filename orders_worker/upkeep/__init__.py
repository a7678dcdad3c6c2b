"""What a worker does beside orders: renew its lease, find dead workers, return their orders."""
