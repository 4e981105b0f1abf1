"""Your own images, in a folder for each class, with a small ResNet and SAM.

    python -m sam_jax.main --config=configs/folder_sam.py --config.data.path=DIR
    python -m sam_jax.main --config=configs/folder_sam.py:sgd --config.data.path=DIR

``DIR`` has ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*``, of which a
fifth is the test set: JPEG, PNG, WebP, BMP or GIF, of any size (docs/data.md). The card
scales them to 32x32; ``--config.data.image_size=64 --config.data.resize=crop`` is
another size, without distortion.

Expected, measured on 4,000 training and 1,000 test images of CIFAR-10 in such a folder,
with ``--config.model.width=4 --config.epochs=2 --config.batch_size=50``: test accuracy
34 % (one seed; chance is 10 %), in half a minute on a CPU core.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "folder"
    config.data.image_size = 32
    config.data.crop = 2
    config.data.flip = True
    config.model.name = "resnet18"
    config.model.width = 16
    config.epochs = 30
    config.batch_size = 64
    config.learning_rate = 0.1
    config.method = load_method(method, card=__file__)
    return config
