"""Text into orders: what a client or a file has, read strictly."""
