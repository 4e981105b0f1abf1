# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Fine-tuning a transformer on text, with frozen weights
#
# A small transformer reads the manual that comes with Python (465 KB of English, in
# `pydoc_data.topics`), learning to predict the next word. Then a few labelled sentences
# teach it to tell topics apart, while most of its weights stay as they are. SAM perturbs
# only what is trained.

# %% tags=["skip-execution"]
# !pip install -q "sam_jax[train]"

# %%
import collections
import re
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sam_jax import data
from sam_jax.train import load_run, loop, report, settings

# %% [markdown]
# ## Words as numbers
#
# The four longest topics are kept for the task. All others are read without labels.

# %%
LENGTH = 24  # words in a snippet
words = {
    name: re.findall(r"\w+|[^\w\s]", text.lower()) for name, text in topics.items()
}
tasks = sorted(words, key=lambda name: -len(words[name]))[:4]
counts = collections.Counter(word for text in words.values() for word in text)
known = {word: i for i, (word, _) in enumerate(counts.most_common(1000), start=1)}


def snippets(text, stride):
    """Rows of LENGTH words, each as its number; 0 is a rare word."""
    numbers = np.array([known.get(word, 0) for word in text])
    starts = range(0, len(numbers) - LENGTH, stride)
    return np.stack([numbers[i : i + LENGTH] for i in starts])


unlabelled = np.concatenate(
    [snippets(t, 24) for k, t in words.items() if k not in tasks and len(t) > LENGTH]
)
random = np.random.default_rng(0)
train, test = [], []
for label, name in enumerate(tasks):
    rows = snippets(words[name], LENGTH)
    cut = len(rows) // 2  # the first half of a text to train on, the other for the test
    chosen = random.permutation(cut)[:40]
    train.append((rows[chosen], np.full(len(chosen), label)))
    test.append((rows[cut:], np.full(len(rows) - cut, label)))


def joined(parts):
    rows, labels = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(labels)


train, test = joined(train), joined(test)
print(tasks, len(unlabelled), "unlabelled,", len(train[1]), "labelled snippets")

# %% [markdown]
# ## The network
#
# An ordinary Flax module. It returns a dict: `logits` for the task, and a distribution over
# the next word at every place.


# %%
class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.MultiHeadDotProductAttention(4, name="attend")(
            nn.LayerNorm()(x), mask=mask
        )
        hidden = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(hidden)


class Reader(nn.Module):
    num_classes: int
    width: int = 32

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(1001, self.width, name="words")
        places = self.param("places", nn.initializers.normal(0.02), (24, self.width))
        x = embed(tokens) + places
        for i in range(2):
            x = Block(name=f"block_{i}")(x)
        x = nn.LayerNorm(name="norm")(x)
        head = nn.Dense(self.num_classes, name="head")
        return {"logits": head(x.mean(1)), "next": embed.attend(x)}


def next_word(outputs, batch):
    """The cross-entropy of the next words, one number per snippet."""
    tokens = batch["image"]
    found = optax.softmax_cross_entropy_with_integer_labels(
        outputs["next"][:, :-1], tokens[:, 1:]
    )
    return found.mean(-1)


# %% [markdown]
# ## Read
#
# The trainer takes the data, the network and the loss as objects. The labels of this run are
# not used. With a cache, programs that several runs share are compiled once.

# %%
jax.config.update("jax_compilation_cache_dir", "programs")
quiet = {"report": "off", "eval_every_epochs": 1000, "log_every_steps": 1000}
adam = {"name": "adamw"}
reading = settings.read(
    quiet | {"epochs": 4, "batch_size": 64, "learning_rate": 0.003, "optimizer": adam}
)
nothing = np.arange(len(unlabelled)) % 2
rows = (unlabelled, nothing)
corpus = data.of_arrays(rows, (unlabelled[:200], nothing[:200]), class_names="ab")
_ = loop.train_and_evaluate(
    reading,
    "runs/reader",
    dataset=corpus,
    model=Reader,
    loss=next_word,
    out=report.Report(quiet=True),
)

# %% [markdown]
# ## Fine-tune
#
# `init_from` names the run whose weights training starts from. The head has other classes
# and is initialized at random. `freeze` is a regular expression on the names of arrays:
# here all but the last block, its norm and the head. A frozen array is a constant: no
# gradient is taken, and SAM neither perturbs it nor counts it in its norm.

# %%
task = data.of_arrays(train, test, class_names=tasks)
tuning = {
    **quiet,
    "epochs": 12,
    "batch_size": 32,
    "learning_rate": 0.003,
    "optimizer": adam,
    "method": {"name": "sam", "rho": 0.05},
}
frozen = {"freeze": "words|places|block_0"}
variants = {
    "all trained": {},
    "frozen as drawn": frozen,
    "fine-tuned": frozen | {"init_from": "runs/reader@last"},
}
accuracy = {}
for name, changes in variants.items():
    results = loop.train_and_evaluate(
        settings.read(tuning | changes),
        f"runs/{name}",
        dataset=task,
        model=Reader,
        out=report.Report(quiet=True),
    )
    accuracy[name] = results["last"]["test"]["accuracy"]
for name, value in accuracy.items():
    print(f"{name:15} test accuracy {value:.3f}")
assert accuracy["fine-tuned"] > accuracy["frozen as drawn"]

# %% [markdown]
# Reading was worthwhile: with words and first block frozen at random values, the error is
# larger. This small reader does not beat a network whose weights are all trained. Freezing
# saves the gradient, the optimizer's state and the perturbation of most weights. Frozen
# arrays are unchanged bit for bit; the others have moved:

# %%
before, after = (
    load_run(f"runs/{name}", "last", model=Reader).params
    for name in ("reader", "fine-tuned")
)
for name in ("words", "block_0", "block_1"):
    same = all(jax.tree.leaves(jax.tree.map(np.array_equal, before[name], after[name])))
    print(f"{name:8} {'unchanged' if same else 'trained'}")
    assert same == (name != "block_1")
