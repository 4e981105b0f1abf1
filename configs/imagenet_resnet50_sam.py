"""ImageNet with ResNet-50 and SAM.

    python -m sam_jax.main --config=configs/imagenet_resnet50_sam.py
    python -m sam_jax.main --config=configs/imagenet_resnet50_sam.py:sgd
    python -m sam_jax.main --config=configs/imagenet_resnet50_sam.py \
        --config.model.name=resnet152_imagenet --config.epochs=400

TFDS prepares the published archives, in ``--config.data.manual_dir=DIR``. A folder for
each class: ``--config.data.name=folder --config.data.path=DIR`` (docs/data.md).

Settings: those of Foret et al. 2021 (batches of 4096 with a perturbation for each 128,
the examples of a device of theirs; learning rate 1 with a cosine, weight decay 1e-4,
label smoothing 0.1, rho 0.05). Assumed: Nesterov momentum 0.9, a warm-up of 5
epochs, resized crops and flips.
All training images are trained on; the test set is the published validation set.

Published, top-1 error in %, SAM and SGD: ResNet-50 22.5 and 22.9 after 100 epochs, 20.9
and 22.3 after 400; ResNet-101 20.2 and 21.2, 19.0 and 22.3; ResNet-152 19.2 and 20.4,
18.4 and 20.9 (Foret et al.).

Cost: 100 epochs of 312 steps of 4096 images with two gradients each. This card has not
been run to its end; there is no result of ours to expect yet.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "imagenet2012"
    config.data.stream = True
    config.data.image_size = 224
    config.data.resize = "crop"
    config.data.middle = 0.875
    config.data.resized_crop = 0.08
    config.data.flip = True
    config.data.validation = 0
    config.model.name = "resnet50_imagenet"
    config.epochs = 100
    config.batch_size = 4096
    config.method_group_size = 128
    config.learning_rate = 1.0
    config.schedule.warmup_epochs = 5.0
    config.optimizer.sgd.nesterov = True
    config.weight_decay.value = 1e-4
    config.label_smoothing = 0.1
    config.method = load_method(method, card=__file__)
    return config
