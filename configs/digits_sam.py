"""Handwritten digits with a small ResNet: the quick start, nothing to download.

    python -m sam_jax.main --config=configs/digits_sam.py
    python -m sam_jax.main --config=configs/digits_sam.py:sgd

Data: the 1,797 digits of scikit-learn, 8x8 pixels, 500 of them for the test.

Expected after 30 epochs, well under a minute of training on 2 CPU cores: test error
0.40 +- 0.00 % with SAM (rho 0.1), 0.40 +- 0.20 % with SGD (mean and standard deviation
of 3 seeds): clean digits are too easy to tell methods apart; ``digits_noisy_sam.py``
does.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "digits"
    config.data.crop = 1
    config.model.name = "resnet_digits"
    config.epochs = 30
    config.batch_size = 64
    config.learning_rate = 0.1
    config.log_every_steps = 10
    config.method = load_method(method, card=__file__, overrides={"sam": {"rho": 0.1}})
    return config
