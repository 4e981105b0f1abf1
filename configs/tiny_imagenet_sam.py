"""Tiny ImageNet with ResNet-18 and SAM.

    python -m sam_jax.main --config=configs/tiny_imagenet_sam.py --config.data.path=DIR
    python -m sam_jax.main --config=configs/tiny_imagenet_sam.py:sgd \
        --config.data.path=DIR

``DIR`` is the published folder, ``tiny-imagenet-200`` with ``train`` and ``val``. Its
images of ``test`` have no labels: the test set is ``val``, and 10 % of the training set
are held out to select by.

Settings: those of Khanh et al. 2024 (batch 128, 200 epochs, learning rate 0.1, momentum
0.9, weight decay 1e-3, rho 0.05; crops of 8 pixels, flips and cutout of 16 pixels with
probability 0.5, as in the authors' code). Their cells, of Table 6, are not available to
us, nor is what their test images were.

Cost: 200 epochs of 703 steps with two gradients each, four times the pixels of CIFAR.
Expect 35 % test accuracy of a first try on 20 of the classes (9,000 original images):
--config.model.width=8 --config.epochs=6, a quarter of an hour on two busy CPU cores.
The 200 epochs have not been run.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "tiny_imagenet"
    config.data.crop = 8
    config.data.flip = True
    config.data.cutout = 16
    config.data.cutout_probability = 0.5
    config.model.name = "resnet18"
    config.epochs = 200
    config.batch_size = 128
    config.learning_rate = 0.1
    config.weight_decay.value = 1e-3
    config.method = load_method(method, card=__file__)
    return config
