"""What keeps an installation in order: examining a database, and deleting sessions that are too old."""
