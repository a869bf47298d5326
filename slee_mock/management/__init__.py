"""The management pages: what they show, and how."""
