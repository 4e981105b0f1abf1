"""ResNet-18 for CIFAR and SAM in PyTorch, written as one would for speed.

The network is that of `sam_jax.models.resnet`; SAM has the two steps of the widely used
davda54/sam: climb along the gradient over all parameters, take the gradient there, come
back, descend. ``pytorch_optimizer`` does the same with the class of that package.
Batches are drawn, cropped and flipped on the device.
"""

# pyright: reportPrivateImportUsage=false
import functools
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

from sam_jax import data

RHO, RATE, MOMENTUM, DECAY, PADDING = 0.05, 0.1, 0.9, 5e-4, 4


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(features)
        self.conv1 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != features:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, features, 1, stride, bias=False),
                nn.BatchNorm2d(features),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features to features."""
        y = functional.relu(self.norm0(self.conv0(x)))
        return functional.relu(self.norm1(self.conv1(y)) + self.shortcut(x))


def resnet18(width: int, classes: int = 10) -> nn.Module:
    """The network; a first stage so wide.

    Example:
        >>> sum(weights.numel() for weights in resnet18(64).parameters())
        11173962
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            layers.append(Block(inputs, width * 2**stage, stride))
            inputs = width * 2**stage
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers, *head)


class Trainer:
    """A call does the next steps and waits for them.

    Args:
        dataset: the images, which are kept on the device.
        batch: examples in a step.
        width: of the network's first stage.
        method: ``sgd``, ``sam`` or ``pytorch_optimizer``.
        steps: of a call.
        dtype: of the network's products.
        compiler: arguments of ``torch.compile``; None runs the network as it is.

    Attributes:
        model: the network, as it is without compilation.
    """

    def __init__(
        self,
        dataset: data.Dataset,
        batch: int,
        width: int,
        method: str,
        steps: int,
        dtype: torch.dtype = torch.bfloat16,
        compiler: Mapping[str, str] | None = None,
    ) -> None:
        cuda = torch.cuda.is_available()
        self._device = torch.device("cuda" if cuda else "cpu")
        torch.backends.cudnn.benchmark = True  # searches algorithms, as XLA does
        torch.manual_seed(0)
        split = dataset.train.split  # pyright: ignore[reportAttributeAccessIssue]
        images = torch.from_numpy(split.images).permute(0, 3, 1, 2)
        self._images = images.to(self._device)
        self._labels = torch.from_numpy(split.labels).long().to(self._device)
        model = resnet18(width, dataset.num_classes).to(self._device)
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.model = self._model = model
        if compiler is not None:
            self._model = torch.compile(model, **compiler)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self._parameters = list(model.parameters())
        settings = {"momentum": MOMENTUM, "weight_decay": DECAY, "fused": True}
        if method == "pytorch_optimizer":
            from pytorch_optimizer import SAM

            self._optimizer = SAM(
                self._parameters, torch.optim.SGD, rho=RHO, lr=RATE, **settings
            )
        else:
            self._optimizer = torch.optim.SGD(self._parameters, RATE, **settings)
        self._norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self._batch, self._steps, self._dtype = batch, steps, dtype
        self._descend = {
            "sgd": lambda gradient: self._optimizer.step(),
            "sam": self._sam,
            "pytorch_optimizer": self._package,
        }[method]

    def __call__(self) -> None:
        """Does the steps."""
        for _ in range(self._steps):
            gradient = functools.partial(self._gradient, *self._augmented())
            gradient()
            self._descend(gradient)
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _gradient(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        lower = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=lower):
            loss = functional.cross_entropy(self._model(images).float(), labels)
        loss.backward()

    def _sam(self, gradient: Callable[[], None]) -> None:
        climbed = self._climb()
        self._without_statistics(gradient)
        with torch.no_grad():
            torch._foreach_sub_(self._parameters, climbed)
        self._optimizer.step()

    def _package(self, gradient: Callable[[], None]) -> None:
        self._optimizer.first_step()  # pyright: ignore[reportAttributeAccessIssue]
        self._without_statistics(gradient)
        self._optimizer.second_step()  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    def _climb(self) -> list[torch.Tensor]:
        """Adds rho g / |g| to the weights; nothing waits for the norm's value."""
        grads = [w.grad for w in self._parameters if w.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        climbed = torch._foreach_mul(grads, RHO / (norm + 1e-12))
        torch._foreach_add_(self._parameters, climbed)
        return list(climbed)

    def _without_statistics(self, gradient: Callable[[], None]) -> None:
        """BatchNorm's running statistics are those of the clean pass."""
        for norm in self._norms:
            norm.momentum = 0.0
        gradient()
        for norm in self._norms:
            norm.momentum = 0.1

    def _augmented(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch, cropped and flipped at random, scaled."""
        count, side = self._batch, self._images.shape[-1]
        draw = torch.randint
        rows = draw(len(self._images), (count,), device=self._device)
        images = functional.pad(self._images[rows], (PADDING,) * 4)
        first = draw(2 * PADDING + 1, (2, count, 1), device=self._device)
        there = torch.arange(side, device=self._device)
        across = first[1] + there
        flipped = draw(2, (count, 1), device=self._device).bool()
        across = torch.where(flipped, across.flip(1), across)
        examples = torch.arange(count, device=self._device)[:, None, None]
        down = (first[0] + there)[:, :, None]
        images = images[examples, :, down, across[:, None]].permute(0, 3, 1, 2)
        images = (images.float() / 255 - 0.45) / 0.25
        return images.contiguous(memory_format=torch.channels_last), self._labels[rows]
