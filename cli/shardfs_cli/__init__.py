"""The `shardfs` command line."""
