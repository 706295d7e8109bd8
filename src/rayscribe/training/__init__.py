"""One run: what it reads, the one loop, its folder."""
