"""The page itself: one HTML file that works offline, forever, and trusts no token."""

from tokenspace.atlas.page.writing import page_bytes, write_page

__all__ = ["page_bytes", "write_page"]
