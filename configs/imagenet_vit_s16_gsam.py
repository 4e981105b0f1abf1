"""ImageNet with a vision transformer (ViT-S/16) and GSAM.

    python -m sam_jax.main --config=configs/imagenet_vit_s16_gsam.py
    python -m sam_jax.main --config=configs/imagenet_vit_s16_gsam.py:sgd
    python -m sam_jax.main --config=configs/imagenet_vit_s16_gsam.py \
        --config.model.name=vit_b16

The images come as in ``imagenet_resnet50_sam.py``.

Settings: alpha 0.6 and a radius that follows the learning rate, from 0.6 to 0.1, are
those of the authors' code for ViT-B/32 (Zhuang et al. 2022). Assumed: batches of 4096,
AdamW with learning rate 3e-3 and decay 0.3, 300 epochs with a line after 32 epochs of
warm-up, crops and flips alone. The network has a class token.

The published cells of these networks are not available to us.

Cost: 300 epochs of 312 steps of 4096 images with two gradients each. This card has not
been run to its end; there is no result of ours to expect yet.
"""

from sam_jax.train.config import default_config, load_method

RADIUS = {"name": "learning_rate", "value": 0.6, "low": 0.1}


def get_config(method: str = "gsam"):
    config = default_config()
    config.data.name = "imagenet2012"
    config.data.stream = True
    config.data.image_size = 224
    config.data.resize = "crop"
    config.data.middle = 0.875
    config.data.resized_crop = 0.08
    config.data.flip = True
    config.data.validation = 0
    config.model.name = "vit_s16"
    config.epochs = 300
    config.batch_size = 4096
    config.learning_rate = 3e-3
    config.schedule.name = "linear"
    config.schedule.warmup_epochs = 32.0
    config.optimizer.name = "adamw"
    config.weight_decay.kind = "decoupled"
    config.weight_decay.value = 0.3
    overrides = {"gsam": {"rho": RADIUS, "alpha": 0.6}}
    config.method = load_method(method, card=__file__, overrides=overrides)
    return config
