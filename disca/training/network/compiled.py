"""ComfyUI's blocks compiled for training: one compilation serves all blocks of a kind.

`+=`, which training cannot have (see `blocks.py`), is made out of place in what is captured. Only a block's forward is
compiled: hooks on it, such as those of sharding, run as ever.
"""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

BACKEND = "inductor"
MOST = 64  # compilations of a kind: with and without gradients and adapters, and some shapes


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compiles their forwards at their first calls; from now on they leave their inputs as they are."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST)
    run = torch.compile(_run, backend=_out_of_place, fullgraph=True)  # else uncompiled code could run, with its `+=`
    for block in blocks:
        block.forward = _forward(run, block)


def _run(forward: Callable, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return forward(block, *args, **kwargs)


def _forward(run: Callable, block: nn.Module) -> Callable:
    forward = type(block).forward  # one function for all of a kind

    def compiled(*args: Any, transformer_options: object = None, **kwargs: Any) -> Any:
        return run(forward, block, *args, transformer_options={}, **kwargs)  # ours are of one call

    return compiled


def _out_of_place(graph: GraphModule, inputs: list[Tensor]) -> Callable:
    for node in graph.graph.nodes:
        if node.target is operator.iadd:
            node.target = operator.add
    graph.recompile()
    return torch._dynamo.lookup_backend(BACKEND)(graph, inputs)
