"""The same nets and meta-gradients in PyTorch, each library used as its own examples use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everyone calls it
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from benchmarks.cases import Case, Data

MetaGradient = Callable[[], tuple[float, dict[str, Tensor]]]  # the loss and the gradient by name, when it is done


def device() -> str:
    """Where PyTorch computes: where JAX does."""
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


class Tensors(NamedTuple):
    """D_tr and D_val of every task, images as PyTorch has them: floating point from 0 to 1, channels first."""

    train: Tensor
    train_targets: Tensor
    validation: Tensor
    validation_targets: Tensor

    @classmethod
    def of(cls, data: Data) -> Tensors:
        """From the arrays that the package gets."""
        tensors = []
        for batch in (data.train, data.validation):
            images = torch.from_numpy(np.moveaxis(batch.inputs, -1, -3).copy())
            targets = torch.from_numpy(np.asarray(batch.targets))
            tensors += [
                images if images.is_floating_point() else images.float() / 255,
                targets if targets.is_floating_point() else targets.long(),
            ]
        return cls(*(tensor.to(device()) for tensor in tensors))


class Flat(nn.Module):
    """Flattened."""

    def forward(self, x: Tensor) -> Tensor:
        """Everything but the examples in one axis."""
        return x.flatten(1)


class BatchNorm(nn.Module):
    """`nn.BatchNorm2d`, or `nn.BatchNorm1d`, without running statistics, written out.

    The second derivative of PyTorch's own is wrong within torch.func (2.13: by 0.3 % in a meta-gradient after one
    inner step, in double precision, where higher, without torch.func, gets it right).
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalised by mean and variance over examples and positions."""
        variance, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0, keepdim=True)
        weight, bias = (each.view(-1, *[1] * (x.ndim - 2)) for each in (self.weight, self.bias))
        return (x - mean) * (weight * torch.rsqrt(variance + self.eps)) + bias


class SoftArgmax(nn.Module):
    """Where each feature map is large: first x of all channels, then y."""

    def forward(self, maps: Tensor) -> Tensor:
        """Coordinates from -1 to 1, `(n, 2 c)`."""
        height, width = maps.shape[-2:]
        share = maps.flatten(2).softmax(-1).view(maps.shape)
        x, y = (torch.linspace(-1, 1, size, dtype=maps.dtype, device=maps.device) for size in (width, height))
        return torch.cat([(share.sum(2) * x).sum(-1), (share.sum(3) * y).sum(-1)], 1)


class Net(nn.Module):
    """The net of a case with the same weights; `transformed`: for torch.func, see `BatchNorm`.

    `conversions` leads from the package's parameters to this module's: for each, its name and how an array of one
    becomes an array of the other and back.
    """

    def __init__(self, case: Case, params: Mapping[str, Any], transformed: bool) -> None:
        super().__init__()
        self.conversions: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = []
        image, stride = getattr(case.model, "image", (1, 1, 0)), getattr(case.model, "stride", 2)
        side, channels = image[0], image[2]
        body: list[nn.Module] = []
        for layer in params.get("conv", ()):
            filters = layer["kernel"].shape[1]
            size = round((layer["kernel"].shape[0] / channels) ** 0.5)
            out = -(-side // stride)
            padding = max((out - 1) * stride + size - side, 0)
            before, after = padding // 2, padding - padding // 2
            if before != after:
                body.append(nn.ZeroPad2d((before, after, before, after)))
            body += [
                nn.Conv2d(channels, filters, size, stride, before if before == after else 0, bias=False),
                _norm(nn.BatchNorm2d, filters, transformed),
                nn.ReLU(),
            ]
            self._convolution(f"body.{len(body) - 3}", size, channels, filters)
            self._vector(f"body.{len(body) - 2}.weight", f"body.{len(body) - 2}.bias")
            side, channels = out, filters
        flattened = (side, side, channels) if "conv" in params and "hidden" not in params else None
        body.append(SoftArgmax() if "conv" in params and "hidden" in params else Flat())
        for layer in params.get("hidden", ()):
            inputs, outputs = layer["kernel"].shape
            # The first layer of an MLP takes pixels whose channels come last there and first here.
            pixels = (28, 28, 3) if "conv" not in params and len(body) == 1 else None
            body.append(nn.Linear(inputs, outputs, bias="bias" in layer))
            self._linear(f"body.{len(body) - 1}", pixels, "bias" in layer)
            if "scale" in layer:
                body.append(_norm(nn.BatchNorm1d, outputs, transformed))
                self._vector(f"body.{len(body) - 1}.weight", f"body.{len(body) - 1}.bias")
            body.append(nn.ReLU())
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(*params["head"]["kernel"].shape)
        self._linear("head", flattened)
        self.to(device(), torch.float64 if params["head"]["kernel"].dtype == np.float64 else torch.float32)
        with torch.no_grad():
            own = dict(self.named_parameters())
            for (name, convert, _), value in zip(self.conversions, _in_order(params), strict=True):
                own[name].copy_(torch.from_numpy(np.array(convert(np.asarray(value)))))

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        """Logits, or predictions."""
        out: Tensor = self.head(self.body(x))
        return out

    def back(self, gradient: Mapping[str, Tensor]) -> list[np.ndarray]:
        """A gradient by name as the package has it, leaf by leaf."""
        return [back(gradient[name].detach().cpu().numpy()) for name, _, back in self.conversions]

    def _convolution(self, name: str, size: int, channels: int, filters: int) -> None:
        self.conversions.append(
            (
                f"{name}.weight",
                lambda k: k.reshape(size, size, channels, filters).transpose(3, 2, 0, 1),
                lambda w: w.transpose(2, 3, 1, 0).reshape(-1, filters),
            )
        )

    def _vector(self, *names: str) -> None:
        self.conversions += [(name, lambda v: v, lambda v: v) for name in names]

    def _linear(self, name: str, pixels: tuple[int, int, int] | None, bias: bool = True) -> None:
        """`pixels`: height, width and channels of what is flattened before, which the package has in that order."""
        if pixels is None:
            self.conversions.append((f"{name}.weight", lambda k: k.T, lambda w: w.T))
        else:
            h, w, c = pixels
            self.conversions.append(
                (
                    f"{name}.weight",
                    lambda k: k.reshape(h, w, c, -1).transpose(3, 2, 0, 1).reshape(-1, h * w * c),
                    lambda m: m.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(h * w * c, -1),
                )
            )
        self._vector(*[f"{name}.bias"] * bias)


def _norm(kind: Callable[..., nn.Module], channels: int, transformed: bool) -> nn.Module:
    return BatchNorm(channels, 1e-3) if transformed else kind(channels, 1e-3, track_running_stats=False)


def _in_order(params: Mapping[str, Any]) -> list[Any]:
    """The leaves in the order of the layers."""
    layers = (*params.get("conv", ()), *params.get("hidden", ()), params["head"])
    return [layer[name] for layer in layers for name in ("kernel", "bias", "scale", "offset") if name in layer]


def distance(net: Net, gradient: Mapping[str, Tensor], reference: Any) -> float:
    """`|g - g_ref| / |g_ref|` over all parameters."""
    pairs = [(g, np.asarray(r)) for g, r in zip(net.back(gradient), _in_order(reference), strict=True)]
    return float(np.sqrt(sum(((g - r) ** 2).sum() for g, r in pairs) / sum((r**2).sum() for _, r in pairs)))


def loss_of(case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a case."""
    if case.regression:
        return F.mse_loss
    return lambda outputs, targets: F.cross_entropy(outputs, targets, label_smoothing=0.1)


def all_peers(case: Case, params: Any, data: Data, steps: int) -> dict[str, tuple[MetaGradient, Net]]:
    """Every peer by name, eager, with its net."""
    tensors = Tensors.of(data)
    found = {}
    for name, make, transformed in (
        ("torch.func with vmap", torch_func, True),
        ("TorchOpt", torchopt_, False),
        ("higher", higher_, False),
        ("parallel-metalearn", metalearn_, True),
    ):
        net = Net(case, params, transformed)
        found[name] = _finished(make(case, net, tensors, steps)), net
    return found


def _finished(run: MetaGradient) -> MetaGradient:
    """`run`, which on a GPU returns before the work is done."""
    if device() == "cpu":
        return run

    def finished() -> tuple[float, dict[str, Tensor]]:
        found = run()
        torch.cuda.synchronize()
        return found

    return finished


def _of_torch_func(case: Case, net: Net, steps: int) -> Callable[..., Any]:
    loss = loss_of(case)

    def objective(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(net, w, (x,)), y)

    def of_task(w: dict[str, Tensor], x: Tensor, y: Tensor, validation: Tensor, targets: Tensor) -> Tensor:
        for _ in range(steps):
            gradient = grad(objective)(w, x, y)
            w = {name: value - case.step_size * gradient[name] for name, value in w.items()}
        return objective(w, validation, targets)

    def mean(w: dict[str, Tensor], *tensors: Tensor) -> Tensor:
        return vmap(of_task, in_dims=(None, 0, 0, 0, 0))(w, *tensors).mean()

    both: Callable[..., Any] = grad_and_value(mean)
    return both


def torch_func(case: Case, net: Net, tensors: Tensors, steps: int) -> MetaGradient:
    """PyTorch's own transformations, tasks vectorised."""
    both = _of_torch_func(case, net, steps)
    w = {name: value.detach() for name, value in net.named_parameters()}

    def run() -> tuple[float, dict[str, Tensor]]:
        gradient, loss = both(w, *tensors)
        return loss.item(), gradient

    return run


def compiled(case: Case, net: Net, tensors: Tensors, steps: int) -> MetaGradient:
    """The same under torch.compile; the first call compiles."""
    both = torch.compile(_of_torch_func(case, net, steps))
    w = {name: value.detach() for name, value in net.named_parameters()}

    def run() -> tuple[float, dict[str, Tensor]]:
        gradient, loss = both(w, *tensors)
        return loss.item(), gradient

    return _finished(run)


def higher_(case: Case, net: Net, tensors: Tensors, steps: int) -> MetaGradient:
    """Task by task, the net patched to take other parameters (Grefenstette et al., 2019)."""
    import higher

    loss, optimizer = loss_of(case), torch.optim.SGD(net.parameters(), case.step_size)

    def run() -> tuple[float, dict[str, Tensor]]:
        net.zero_grad(set_to_none=True)
        total = 0.0
        for x, y, validation, targets in zip(*tensors, strict=True):
            with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (inner, differentiable):
                for _ in range(steps):
                    differentiable.step(loss(inner(x), y))
                of_task = loss(inner(validation), targets) / len(tensors.train)
                of_task.backward()
                total += of_task.item()
        return total, _gradients(net)

    return run


def torchopt_(case: Case, net: Net, tensors: Tensors, steps: int) -> MetaGradient:
    """Task by task with a differentiable optimiser (Ren et al., 2023)."""
    import torchopt

    loss, optimizer = loss_of(case), torchopt.MetaSGD(net, lr=case.step_size)
    leaves = dict(net.named_parameters())
    start = torchopt.extract_state_dict(net, by="reference")
    fresh = torchopt.extract_state_dict(optimizer, by="reference")

    def run() -> tuple[float, dict[str, Tensor]]:
        for leaf in leaves.values():
            leaf.grad = None
        total = 0.0
        for x, y, validation, targets in zip(*tensors, strict=True):
            for _ in range(steps):
                optimizer.step(loss(net(x), y))
            of_task = loss(net(validation), targets) / len(tensors.train)
            of_task.backward()
            total += of_task.item()
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(optimizer, fresh)
        return total, {name: _gradient(leaf) for name, leaf in leaves.items()}

    return run


def metalearn_(case: Case, net: Net, tensors: Tensors, steps: int) -> MetaGradient:
    """The MAML of parallel-metalearn, all tasks in one chunk; its outer optimiser takes steps of length 0."""
    from metalearn.algorithms.MAML import MAML
    from metalearn.inner_optimizers.optimizers import InnerSGD
    from metalearn.loss.base import BaseLoss
    from metalearn.model_wrappers.MAMLWrapper import MAML_Model

    loss = loss_of(case)

    class Loss(BaseLoss):
        def forward(self, out_dict: Any, targets: Any, **_: Any) -> tuple[Tensor, Tensor]:
            value = loss(out_dict["logits"], targets["labels"])
            return value, value.detach()

    class Same(nn.Module):
        def forward(self, x: Tensor, **_: Any) -> Tensor:
            return x

    model = MAML_Model(net, Same())
    learner = MAML(
        model=model,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.0),
        inner_optimizer=InnerSGD(model.get_fast_weights(), inner_lr=case.step_size, learn_lr=False),
        support_loss_fn=Loss(),
        inner_steps=steps,
        device=torch.device(device()),
    )
    tasks = (
        tensors.train,
        {"labels": tensors.train_targets},
        tensors.validation,
        {"labels": tensors.validation_targets},
    )

    def run() -> tuple[float, dict[str, Tensor]]:
        total, _ = learner.step(iter([tasks]))
        return total, _gradients(net)

    return run


def _gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: _gradient(value) for name, value in net.named_parameters()}


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
