"""The floor: the bare matrix products of a meta-gradient, of the same shapes and as many, on the same cores."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.cases import Case, Function
from metaleader import devices

XLA = "floor: products by XLA"
OPERANDS = 4  # the smaller operand of a product alternates between so many, so that none can be saved


class Product(NamedTuple):
    """`(rows, inner) x (inner, columns)`, and whether the left operand comes transposed, or the right one."""

    rows: int
    inner: int
    columns: int
    left: bool = False
    right: bool = False

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns


Products: TypeAlias = Counter[Product]


class Layer(NamedTuple):
    """`x W` with `rows` rows for each example."""

    rows: int
    inputs: int
    outputs: int


def layers(case: Case, params: Any) -> list[Layer]:
    """The linear maps of a net, from its weights: convolutions as patches times a matrix."""
    found = []
    side, stride = getattr(case.model, "image", (0,))[0], getattr(case.model, "stride", 2)
    for layer in params.get("conv", ()):
        side = -(-side // stride)
        found.append(Layer(side * side, *layer["kernel"].shape))
    return found + [Layer(1, *layer["kernel"].shape) for layer in (*params.get("hidden", ()), params["head"])]


def meta_gradient_products(of: list[Layer], train: int, validation: int, steps: int) -> Products:
    """The products that one task's meta-gradient cannot do without.

    A gradient takes `x W` forward, and `x' g` and `g W'` backward, the last not for the first layer. The
    Hessian-vector product takes twice each of the three, as each has two factors to differentiate; the first layer's
    x does not change, which spares one of two. What it takes of the gradient's own products was kept.
    """
    products: Products = Counter()
    for examples, times, of_first, of_others in (
        (train, steps, (1, 1, 0), (1, 1, 1)),  # gradients
        (train, steps, (1, 1, 0), (2, 2, 2)),  # Hessian-vector products
        (validation, 1, (1, 1, 0), (1, 1, 1)),
    ):
        for i, layer in enumerate(of):
            forward, weights, backward = of_others if i else of_first
            n = layer.rows * examples
            products[Product(n, layer.inputs, layer.outputs)] += times * forward
            products[Product(layer.inputs, n, layer.outputs, left=True)] += times * weights
            products[Product(n, layer.outputs, layer.inputs, right=True)] += times * backward
    return +products


def operations(products: Products) -> int:
    """Of all products."""
    return sum(product.operations * times for product, times in products.items())


def contenders(products: Products, tasks: int) -> dict[str, Function]:
    """The products of `tasks` tasks by XLA, by NumPy's BLAS and by PyTorch, each core taking its share of them.

    A GPU takes the product of all tasks at once, by XLA and by PyTorch.
    """
    if jax.default_backend() != "cpu":
        return {
            XLA: _batched_by_xla(products, tasks),
            "floor: products by PyTorch": _batched_by_torch(products, tasks),
        }
    cores = jax.local_device_count()
    shares = {product: max(1, round(times * tasks / cores)) for product, times in products.items()}
    return {
        XLA: _by_xla(shares, cores),
        "floor: products by NumPy": _by_numpy(shares, cores),
        "floor: products by PyTorch": _by_torch(shares, cores),
    }


def _operands(product: Product, random: np.random.Generator, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """`left` left operands and `right` right ones, as they lie in memory."""
    a = (product.inner, product.rows) if product.left else (product.rows, product.inner)
    b = (product.columns, product.inner) if product.right else (product.inner, product.columns)
    return (
        random.normal(size=(left, *a)).astype(np.float32),
        random.normal(size=(right, *b)).astype(np.float32),
    )


def _by_xla(shares: dict[Product, int], cores: int) -> Function:
    random = np.random.default_rng(0)
    operands = [_operands(product, random, 1, OPERANDS) for product in shares]

    def share(operands: list[tuple[Any, Any]]) -> list[Any]:
        results = []
        for (product, times), (a, b) in zip(shares.items(), operands, strict=True):
            dimensions = (((0 if product.left else 1,), (1 if product.right else 0,)), ((), ()))

            # A loop's result depends on its last product alone, but the compiler cannot know that.
            def again(i: Any, _: Any, a: Any = a, b: Any = b, dimensions: Any = dimensions) -> Any:
                return jax.lax.dot_general(a[0], b[i % OPERANDS], dimensions)

            results.append(jax.lax.fori_loop(0, times, again, jnp.zeros((product.rows, product.columns)))[None])
        return results

    mesh = devices.mesh(cores)
    spread = jax.shard_map(
        share, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(devices.TASKS), check_vma=False
    )
    everywhere = jax.device_put(operands, NamedSharding(mesh, PartitionSpec()))
    compiled = jax.jit(spread).lower(everywhere).compile()
    return lambda: jax.block_until_ready(compiled(everywhere))


def _batched_by_xla(products: Products, tasks: int) -> Function:
    random = np.random.default_rng(0)
    operands = [jax.device_put(_operands(product, random, tasks, OPERANDS)) for product in products]

    def all_of_them(operands: list[tuple[Any, Any]]) -> list[Any]:
        results = []
        for (product, times), (a, b) in zip(products.items(), operands, strict=True):
            dimensions = (((1 if product.left else 2,), (2 if product.right else 1,)), ((0,), (0,)))

            def again(i: Any, _: Any, a: Any = a, b: Any = b, dimensions: Any = dimensions) -> Any:
                right = jnp.broadcast_to(b[i % OPERANDS], (tasks, *b.shape[1:]))
                return jax.lax.dot_general(a, right, dimensions)

            zeros = jnp.zeros((tasks, product.rows, product.columns))
            results.append(jax.lax.fori_loop(0, times, again, zeros))
        return results

    compiled = jax.jit(all_of_them).lower(operands).compile()
    return lambda: jax.block_until_ready(compiled(operands))


def _batched_by_torch(products: Products, tasks: int) -> Function:
    import torch

    random, work = np.random.default_rng(0), []
    for product, times in products.items():
        a, b = (torch.from_numpy(each).cuda() for each in _operands(product, random, tasks, tasks))
        out = torch.empty(tasks, product.rows, product.columns, device="cuda")
        work.append((a.mT if product.left else a, b.mT if product.right else b, out, times))

    def run() -> None:
        with torch.inference_mode():
            for a, b, out, times in work:
                for _ in range(times):
                    torch.bmm(a, b, out=out)
        torch.cuda.synchronize()

    return run


def _by_numpy(shares: dict[Product, int], cores: int) -> Function:
    work = [_host_operands(shares) for _ in range(cores)]
    controller = threadpoolctl.ThreadpoolController()

    def run(job: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]) -> None:
        for a, b, out, times in job:
            for _ in range(times):
                np.matmul(a, b, out=out)

    pool = ThreadPoolExecutor(cores)

    def all_cores() -> None:
        with controller.limit(limits=1):
            list(pool.map(run, work))

    return all_cores


def _by_torch(shares: dict[Product, int], cores: int) -> Function:
    import torch

    work = [
        [(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out), times) for a, b, out, times in job]
        for job in (_host_operands(shares) for _ in range(cores))
    ]

    def run(job: list[tuple[Any, Any, Any, int]]) -> None:
        torch.set_num_threads(1)  # of this thread
        with torch.inference_mode():
            for a, b, out, times in job:
                for _ in range(times):
                    torch.mm(a, b, out=out)

    pool = ThreadPoolExecutor(cores)

    def all_cores() -> None:
        list(pool.map(run, work))
        torch.set_num_threads(cores)

    return all_cores


def _host_operands(shares: dict[Product, int]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    random, work = np.random.default_rng(0), []
    for product, times in shares.items():
        (a,), (b,) = _operands(product, random, 1, 1)
        out = np.empty((product.rows, product.columns), np.float32)
        work.append((a.T if product.left else a, b.T if product.right else b, out, times))
    return work
