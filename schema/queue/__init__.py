"""Every statement that moves an order, each above the function that runs it."""
