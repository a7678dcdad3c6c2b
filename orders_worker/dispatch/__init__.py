"""The main loop: claims out of the database, finished orders back in."""
