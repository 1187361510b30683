"""The kernel engine: it speaks the FUSE protocol on /dev/fuse itself, without libfuse.

`engine` serves: `channel` gets the descriptor and moves messages, whose layouts are in `messages`; `operations` finds
who answers from the vfs: `names`, `attributes`, `files` or `directories`; `greeting` agrees on what both sides can do;
`table` knows the nodes that the kernel holds, `policy` for how long it may keep what it was told, and `passthrough`
which files it reads itself; `workers` take what may wait, `interrupts` finds what nobody waits for any more, and
`notices` tells the kernel what is no longer true.
"""
