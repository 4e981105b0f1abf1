"""What a pod will do, by the compiler for TPUs, on a machine without one.

`programs.compiled` compiles the trainer's own step for devices that need not exist,
`programs.told` reads from it what it needs, sends and takes, and `report` shows that.
``sam-jax rehearse`` does all of it in separate processes.
"""
