"""Every statement that only looks."""
