"""Fine-tuning: digits 5 to 9 from few examples, with a network that knows 0 to 4.

    python -m sam_jax.main --config=configs/digits_sam.py \
        --config.data.name=digits/0-4 --workdir=runs/first
    python -m sam_jax.main --config=configs/digits_finetune_sam.py \
        --config.init_from=runs/first

All but the linear head begins as the first run has ended; the head, of other classes,
is drawn, and learns ten times as fast. Without ``--config.init_from`` the card trains
from scratch. Other data: ``--config.data.name=folder --config.data.path=DIR
--config.data.train_examples=None``; other weights and networks: docs/fine_tuning.md.

Expected, with 50 training and 249 test examples, on one CPU core in half a minute: test
accuracy 92.8 +- 1.7 %, from scratch 91.6 +- 3.0 % (3 seeds, which
draw the examples).
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "digits/5-9"
    config.data.train_examples = 50
    config.model.name = "resnet_digits"
    config.epochs = 30
    config.batch_size = 25
    config.learning_rate = 0.02
    config.learning_rate_factors = "^Dense_0=10"
    config.log_every_steps = 10
    config.method = load_method(method, card=__file__, overrides={"sam": {"rho": 0.1}})
    return config
