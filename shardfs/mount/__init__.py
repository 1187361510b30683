"""The mount: the kernel's view of a repository.

`vfs` knows no kernel, the engines `kernel` and `libfuse` no behaviour, `session` both ends.
"""
