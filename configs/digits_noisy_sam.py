"""Digits with 40 % wrong training labels: the quickest picture of what SAM does.

    python -m sam_jax.main --config=configs/digits_noisy_sam.py
    python -m sam_jax.main --config=configs/digits_noisy_sam.py:sgd

1,000 training digits, of which 400 carry the label of another class; 500 for the test
(true labels), the rest for validation (true labels).

Expected after 60 epochs, test error of the last epoch in % (mean and 95 % interval of 5
seeds): SGD 32.84 +- 2.27, SAM (rho 0.5) 18.96 +- 3.50; of the epoch that validation
selects, early in training: SGD 13.44 +- 3.63, SAM 5.56 +- 0.92. Half a minute a run on
2 CPU cores, and some seconds for the loss around the last weights, which the report
shows.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "digits"
    config.data.validation = 297
    config.data.label_noise = 0.4
    config.model.name = "resnet_digits"
    config.epochs = 60
    config.batch_size = 50
    config.learning_rate = 0.1
    config.log_every_steps = 10
    config.sharpness.every = 60
    config.sharpness.measures = "line,plane"
    config.sharpness.examples = 250
    config.method = load_method(method, card=__file__, overrides={"sam": {"rho": 0.5}})
    return config
