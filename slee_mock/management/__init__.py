"""The management pages: routes, queries, snapshot, and the front page as static files."""
