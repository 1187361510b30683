"""Durable local state: packs, index, refs, the writer lock; and the cache, which may be lost."""
