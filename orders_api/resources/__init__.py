"""The resources: one class for each route."""
