# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your own images and network
#
# From a folder of photographs to predictions in another program: a network of your own is
# trained with SAM, loaded again, and exported.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train]"

# %% [markdown]
# ## Images
#
# One folder per class: `photos/train/<class>/*` and `photos/test/<class>/*`. This cell
# makes some ([data](../data.md) lists other forms).

# %%
import json
import pathlib

import numpy as np
import PIL.Image
from sklearn import datasets

digits = datasets.load_digits()
names = ("zero", "one", "two")
for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    if label < len(names):
        split = "test" if number % 4 == 0 else "train"
        folder = pathlib.Path("photos", split, names[label])
        folder.mkdir(parents=True, exist_ok=True)
        photo = PIL.Image.fromarray((image * 15.9).astype("uint8")).convert("RGB")
        photo.resize((40, 30)).save(folder / f"{number}.jpg", quality=95)
print(len(list(pathlib.Path("photos").glob("*/*/*"))), "photographs")

# %% [markdown]
# ## A network
#
# The class of a Flax module, of Linen or NNX, in a file. It is called with a batch of
# images and returns one logit per class; `train` says whether it is being trained.

# %%
# %%writefile my_net.py
from flax import linen as nn


class MyNet(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(images))
        x = nn.Conv(32, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


# %% [markdown]
# [Your own](../your_own.md) describes losses, methods, optimizers, schedules, augmentation
# and metrics.
#
# ## Train
#
# `sam-jax train` and `python -m sam_jax train` are the same. If the run is interrupted, by
# `kill -9` too, the same command continues it, and so does `sam-jax resume runs/photos
# --own_code`. It ends with the same bits as an undisturbed run.

# %% language="bash"
# python -m sam_jax train --config=folder_sam --config.data.path=photos \
#     --config.data.image_size=16 --config.model.name=my_net.py:MyNet \
#     --config.model.width=None --config.epochs=20 --config.eval_every_epochs=5 \
#     --workdir=runs/photos

# %% [markdown]
# `runs/photos/report.html` shows curves, calibration and the most confident mistakes
# ([report](../report.md)).
#
# ## Use it
#
# `load_run` needs the folder of the run and nothing else: neither the data set nor the
# settings. `own_code=True` allows it to run the file that the run names, here `my_net.py`.

# %%
from sam_jax.data import pictures
from sam_jax.train import load_run

run = load_run("runs/photos", step="best", own_code=True)
files = sorted(pathlib.Path("photos/test").glob("*/*"))
images = [pictures.decode(str(file), pictures.How(image_size=16)) for file in files]
probabilities = np.asarray(run.predict(images))
predicted = [run.class_names[i] for i in probabilities.argmax(-1)]
accuracy = np.mean(
    [file.parent.name == name for file, name in zip(files, predicted, strict=True)]
)
print(run.class_names, f"test accuracy {accuracy:.3f}")
assert accuracy > 0.6

# %% [markdown]
# The same from a terminal: `sam-jax evaluate runs/photos --own_code` for scores of each
# class, and `sam-jax predict runs/photos photos/test --own_code --out=predictions.csv` for a
# table.
#
# ## Take it elsewhere
#
# There are two formats. An exported program turns bytes into probabilities. It needs JAX and
# flatbuffers, but neither `sam_jax` nor the network's file. Safetensors reads the weights.

# %% language="bash"
# python -m sam_jax export runs/photos --own_code --to=jax.export --out=photos.jaxexport
# python -m sam_jax export runs/photos --own_code --to=safetensors --out=photos.safetensors

# %%
import jax.export
import safetensors

program = jax.export.deserialize(
    bytearray(pathlib.Path("photos.jaxexport").read_bytes())
)
photo = PIL.Image.open(files[0]).resize((16, 16), PIL.Image.Resampling.BILINEAR)
elsewhere = np.asarray(program.call(np.asarray(photo)[None]))[0]
print("exported:", elsewhere.round(4), "loaded:", probabilities[0].round(4))
np.testing.assert_allclose(elsewhere, probabilities[0], atol=1e-4)

with safetensors.safe_open("photos.safetensors", "np") as weights:
    about = json.loads(weights.metadata()["sam_jax"])
    print(about["data"]["class_names"], *sorted(weights.keys()))
assert sorted(about["data"]["class_names"]) == sorted(names)

# %% [markdown]
# ## Many runs
#
# Three radii with two seeds each, and a table that includes the run from above:
#
#     sam-jax sweep --config=folder_sam --set=method.rho=0.05,0.1,0.2 --seeds=2 \
#         --config.data.path=photos --config.data.image_size=16 --config.epochs=5 \
#         --config.model.name=my_net.py:MyNet --config.model.width=None --out=runs/radii
#     sam-jax compare runs/radii runs/photos --out=comparison
#     sam-jax report runs/radii runs/photos --out=report.html
#
# [Choosing rho](choosing_rho.ipynb) explains the search, [sweeps](../sweeps.md) the command.
