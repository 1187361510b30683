"""Care of a store: what it holds, whether that is sound, what can go, what needs mending."""
