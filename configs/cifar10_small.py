"""CIFAR-10 with 2,000 images and a small ResNet: a run in a minute on one CPU core.

    python -m sam_jax.main --config=configs/cifar10_small.py
    python -m sam_jax.main --config=configs/cifar10_small.py:sgd

2,000 training images without augmentation, which the network (44,000 weights) fits;
2,000 others for validation, all 10,000 test images. The setting of the small tables of
`python -m experiments.training`.

Expected, test error in %: SGD 58, SAM 57; with --config.data.label_noise=0.4, SGD 75
(76 with --config.learning_rate=0.1), SAM with --config.method.rho=0.5 69 (ten seeds: 65
to 75).
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation = 2000
    config.data.train_examples = 2000
    config.model.name = "resnet_small"
    config.model.width = 12
    config.epochs = 30
    config.batch_size = 128
    config.learning_rate = 0.2
    config.weight_decay.value = 5e-4
    config.eval_every_epochs = 30
    config.checkpoint.every_epochs = None
    config.checkpoint.every_seconds = 60.0
    config.log_every_steps = 15
    config.report = "off"
    every = {"every": 15}  # updates of an epoch, after which masks are renewed
    masked = {"sparse_sam": every, "dynamic_sparse_sam": every}
    config.method = load_method(method, card=__file__, overrides=masked)
    return config
