"""CIFAR-10 with ResNet-18, or a Wide ResNet, and SAM.

    python -m sam_jax.main --config=configs/cifar10_sam.py
    python -m sam_jax.main --config=configs/cifar10_sam.py --config.model.name=wrn28_10
    python -m sam_jax.main --config=configs/cifar10_sam.py:sgd

Settings: those of Foret et al. 2021 for WRN-28-10 with basic augmentation (200 epochs,
learning rate 0.1, weight decay 5e-4, rho 0.05) at the batch size 128 of davda54/sam and
Khanh et al. 2024; 10 % of the training set are held out to select by.

Published, test error in %: WRN-28-10 SAM 2.7 +- .1, SGD 3.5 +- .1 (Foret et al., batch
256, all 50,000 images, 5 runs); ResNet-18 SAM 4.3, SGD 5.2 (bayesian-sam README).

Cost: 200 epochs of 351 steps with two gradients each. Expect 73.7 % test accuracy of a
first try, on the real images: --config.model.width=8 --config.epochs=6, a quarter of an
hour on two busy CPU cores. The 200 epochs have not been run.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "cifar10"
    config.data.crop = 4
    config.data.flip = True
    config.model.name = "resnet18"
    config.epochs = 200
    config.batch_size = 128
    config.learning_rate = 0.1
    config.weight_decay.value = 5e-4
    config.method = load_method(method, card=__file__)
    return config
