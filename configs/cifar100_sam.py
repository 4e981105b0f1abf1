"""CIFAR-100 with ResNet-18, or a Wide ResNet, and SAM.

    python -m sam_jax.main --config=configs/cifar100_sam.py
    python -m sam_jax.main --config=configs/cifar100_sam.py --config.model.name=wrn28_10
    python -m sam_jax.main --config=configs/cifar100_sam.py:sgd

Settings: those of ``cifar10_sam.py`` with rho 0.1 (Foret et al. 2021 for CIFAR-100);
10 % of the training set are held out to select by.

Published, test error in %: WRN-28-10 SAM 16.5 +- .2, SGD 18.8 +- .2 (Foret et al.,
batch 256, all 50,000 images, 5 runs).

Cost: 200 epochs of 351 steps with two gradients each. This card has not been run to its
end; there is no result of ours to expect yet.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "cifar100"
    config.data.crop = 4
    config.data.flip = True
    config.model.name = "resnet18"
    config.epochs = 200
    config.batch_size = 128
    config.learning_rate = 0.1
    config.weight_decay.value = 5e-4
    config.method = load_method(method, card=__file__, overrides={"sam": {"rho": 0.1}})
    return config
