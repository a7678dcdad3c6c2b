"""HTTP in, rows in: the REST API that submits orders and answers questions about them."""
