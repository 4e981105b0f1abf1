"""Settings of every test and doctest: eight CPU devices, set before JAX starts."""

import os
import signal

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["MPLBACKEND"] = "Agg"

# A shell starts what is behind an & with Ctrl-C ignored, which the programs that tests
# start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
