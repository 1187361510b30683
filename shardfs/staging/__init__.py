"""The mutable tree that becomes the next commit, and the way of files into the store."""
