"""Tests of methods: `check_method` runs the contract of the library on yours.

Example::

    import sam_jax.testing
    from my import my_sam

    def test_my_sam():
        sam_jax.testing.check_method(my_sam)
"""

from sam_jax.testing.contract import CHECKS as CHECKS
from sam_jax.testing.contract import check_method as check_method
from sam_jax.testing.method import Method as Method
from sam_jax.testing.method import Traits as Traits
from sam_jax.testing.method import sgd as sgd
