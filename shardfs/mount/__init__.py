"""The mount: the kernel's view of a repository. `vfs` knows no kernel, `libfuse` no behaviour, `session` both ends."""
