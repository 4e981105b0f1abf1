"""Fashion-MNIST with a small ResNet and SAM, at the size of a CPU.

    python -m sam_jax.main --config=configs/fashion_mnist_sam.py
    python -m sam_jax.main --config=configs/fashion_mnist_sam.py:sgd

TFDS downloads the four archives (30 MB). Without a network, fetch them by hand and add
``--config.data.manual_dir=FOLDER``.

For the size of the published results add ``--config.model.name=wrn28_10
--config.model.width=16 --config.epochs=200 --config.data.crop=4``: test error in %, SAM
3.59, SGD 3.76 (Foret et al. 2021, WRN-28-10).

Expected of this small setting, test error in % after 5 epochs (mean and 95 %
interval of 3 seeds): SGD 10.08 +- 0.62, SAM (rho 0.05) 10.78 +- 0.52. A network of
19,810 parameters underfits in 5 epochs: there is no overfitting for SAM to prevent, and
it learns a little more slowly.
"""

from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.data.name = "fashion_mnist"
    config.data.flip = True
    config.model.name = "resnet_digits"
    config.model.width = 8
    config.epochs = 5
    config.batch_size = 128
    config.learning_rate = 0.1
    config.method = load_method(method, card=__file__)
    return config
