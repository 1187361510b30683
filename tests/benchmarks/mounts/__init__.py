"""Parts of `bench_mount`: who is measured, with what, and how."""
