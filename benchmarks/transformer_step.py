"""One step of a transformer with four layers of width 256, on a batch of 16 × 128 tokens: cross entropy, AdamW.

The time of a step, and how far the resident memory rises above parameters and state while it runs.
"""

import statistics
from typing import Any

import torch
from torch import nn

import torchpure as tp

from ._article import have
from ._harness import REPEATS, check_same_work, report, times
from ._memory import memory
from ._step import COMPILED, JAX, OURS, SETTINGS, Work, jax_step, torch_programs, torchpure_step

THREADS = 2
FIGURE, LEARNING_RATE = "transformer step", 3e-4
LAYERS, WIDTH, HEADS, TOKENS = 4, 256, 4, 1000
BATCH, LENGTH = 16, 128


def main() -> None:
    """Compare steps, in microseconds, and their memory, in MiB."""
    what = work()
    programs = {OURS: torchpure_step(what)} | torch_programs(what)
    if have("jax", "optax"):
        import optax

        programs[JAX] = jax_step(what, forward, optax.adamw(LEARNING_RATE, weight_decay=1e-2))
    for run, _ in programs.values():
        run(5)
    check_same_work(FIGURE, {name: loss() for name, (_, loss) in programs.items()}, 1e-3)
    runs = {name: run for name, (run, _) in programs.items()}
    title = f"{LAYERS} layers of {WIDTH}, {BATCH} × {LENGTH} tokens, AdamW"
    report(f"{FIGURE}: {title}", times(runs, 3, bursts=3), OURS, dict.fromkeys(COMPILED, 1.0), SETTINGS)
    rises = {name: [memory(run) for _ in range(REPEATS)] for name, run in runs.items()}
    bars = {min(COMPILED, key=lambda name: statistics.median(rises[name])): 1.05}
    report(f"{FIGURE}: memory of a step, {title}", rises, OURS, bars, SETTINGS, unit="MiB")


def work() -> Work:
    """Make the network, its optimizer and a batch."""
    model = tp.functional(_network).to_module()
    k_inputs, k_targets = tp.random.split(tp.random.key(1))
    inputs = tp.random.randint(k_inputs, (BATCH, LENGTH), 0, TOKENS)
    targets = tp.random.randint(k_targets, (BATCH * LENGTH,), 0, TOKENS)
    return Work(model, inputs, targets, LEARNING_RATE, torch.optim.AdamW, tp.optim.adamw(LEARNING_RATE))


def _network() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(TOKENS, WIDTH), encoder, nn.Linear(WIDTH, TOKENS))


def forward(params: dict, tokens: Any) -> Any:
    """Compute what the network does, with JAX."""
    import jax

    def linear(x: Any, name: str, joint: str = ".") -> Any:
        return x @ params[f"{name}{joint}weight"].T + params[f"{name}{joint}bias"]

    def norm(x: Any, name: str) -> Any:
        return jax.nn.standardize(x, epsilon=1e-5) * params[f"{name}.weight"] + params[f"{name}.bias"]

    def attend(x: Any, name: str) -> Any:
        joined = linear(x, f"{name}.in_proj", "_").reshape(BATCH, LENGTH, 3, HEADS, WIDTH // HEADS)
        mixed = jax.nn.dot_product_attention(joined[:, :, 0], joined[:, :, 1], joined[:, :, 2])
        return linear(mixed.reshape(BATCH, LENGTH, WIDTH), f"{name}.out_proj")

    hidden = params["0.weight"][tokens]
    for i in range(LAYERS):
        name = f"1.layers.{i}"
        hidden = hidden + attend(norm(hidden, f"{name}.norm1"), f"{name}.self_attn")
        inner = jax.nn.relu(linear(norm(hidden, f"{name}.norm2"), f"{name}.linear1"))
        hidden = hidden + linear(inner, f"{name}.linear2")
    return linear(hidden, "2")
