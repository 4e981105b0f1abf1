"""Long-tailed CIFAR-10: 5,000 images of the first class, 50 of the last.

    python -m sam_jax.main --config=configs/cifar10_long_tailed_sam.py
    python -m sam_jax.main --config=configs/cifar10_long_tailed_sam.py:focal_sam
    python -m sam_jax.main --config=configs/cifar10_long_tailed_sam.py:sgd

12,406 training images: class c keeps 5000 * 100**(-c / 9) of its images, as in Cui et
al. 2019; all 10,000 test images, of classes of one size. Nothing is held out for
early stopping. Batch, decay, epochs and the coefficients of Focal-SAM are those
of scongl/Focal-SAM (Li et al. 2025) for a ResNet-32, whose loss adjusts the logits by
the shares of the classes; here it is the plain cross-entropy.

The 200 epochs have not been run. For another imbalance: --config.data.imbalance=50.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation = 0
    config.data.imbalance = 100.0
    config.data.crop = 4
    config.data.flip = True
    config.model.name = "resnet18"
    config.epochs = 200
    config.batch_size = 64
    config.learning_rate = 0.1
    config.weight_decay.value = 2e-4
    focal = {"rho": 0.2, "gamma": 3.0, "lam": 0.5}
    config.method = load_method(
        method, card=__file__, overrides={"sam": {"rho": 0.2}, "focal_sam": focal}
    )
    return config
