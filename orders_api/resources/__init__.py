"""What answers at each route, a class a route."""
