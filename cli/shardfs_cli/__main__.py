"""`python -m shardfs_cli` is `shardfs`."""

from shardfs_cli.main import main

main()
