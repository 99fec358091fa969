"""The table of programs that people compile: models, training steps and numerical methods, at small sizes.

The key says what the program is. Each row builds it with random weights, so that a test builds only what it runs. To
add a program, write a function that returns a `Program`, and a line in `PROGRAMS`.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchpure as tp

D = torch.float64
KEY = tp.random.key(3)


class Program(NamedTuple):
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    donate: tuple[int, ...] = ()
    tolerance: float = 1e-10  # relative to the largest entry of a result: in float64, sums in another order
    not_native: str = ""  # part of the reason why another backend compiles it


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def words(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def net_of(make: Callable[[], nn.Module], dtype: torch.dtype = D) -> Any:
    """Make a module whose weights are the same in each run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tp.functional(make().to(dtype))


def training(
    make: Callable[[], nn.Module], loss: Callable[[Any], Tensor], *inputs: Any, dtype: torch.dtype = D, **options: Any
) -> Program:
    """Make the program of the loss, the new state and the gradient of a module in training mode."""
    net = net_of(make, dtype)

    def value(params, state, inputs):
        found, state = net.apply(params, state, *inputs, key=KEY, **options)
        return loss(found), state

    return Program(tp.value_and_grad(value, has_aux=True), (net.params, net.state, inputs))


def classified(make: Callable[[], nn.Module], *images: int) -> Program:
    """Make the training program of a network that sorts images into four classes."""
    labels = words(4, images[0])
    return training(make, lambda logits: F.cross_entropy(logits, labels), rows(*images))


# Transformers, with dropout.


def gpt2(dtype: torch.dtype = D) -> Program:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=65, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    return _language_model(lambda: GPT2LMHeadModel(config), dtype=dtype, use_cache=False)


def bert() -> Program:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=65, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    mask = torch.arange(12) < torch.tensor([[12], [7]])  # the second text is shorter
    return _language_model(lambda: BertForMaskedLM(config), attention_mask=mask.long())


def llama() -> Program:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=65, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, attention_dropout=0.1,
    )  # fmt: skip
    made = _language_model(lambda: LlamaForCausalLM(config), use_cache=False)
    return made._replace(tolerance=1e-5)  # its norms and rotations are computed in float32


def vit() -> Program:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    config.num_labels = 4
    labels = words(4, 2)
    return training(lambda: ViTForImageClassification(config), lambda out: out.loss, rows(2, 3, 8, 8), labels=labels)


def _language_model(make: Callable[[], nn.Module], **options: Any) -> Program:
    tokens = words(65, 2, 12)

    def loss(out: Any) -> Tensor:  # the module's own loss is in float32
        return F.cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    return training(make, loss, input_ids=tokens, **options)


class Windows(nn.Module):
    """A block of a Swin transformer (Liu et al. 2021): attention inside windows that are shifted by `roll`."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        shifted = self.before(x).roll((-self.shift, -self.shift), (1, 2))
        x = x + self._attend(shifted).roll((self.shift, self.shift), (1, 2))
        return x + self.mlp(self.after(x))

    def _attend(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        w = self.window
        windows = x.reshape(batch, height // w, w, width // w, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        parts = self.mixed(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*parts.unbind(0), attn_mask=self.bias)
        found = self.out(found.transpose(1, 2).flatten(2))
        return found.reshape(batch, height // w, width // w, w, w, channels).transpose(2, 3).reshape(x.shape)


class Merged(nn.Module):
    """Merge squares of four patches into one patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.out(self.norm(torch.cat(corners, -1)))


class Means(nn.Module):
    """The mean over height and width of images in channels-last order."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def swin() -> Program:
    def make() -> nn.Module:
        patches = nn.Conv2d(3, 8, 2, stride=2), ChannelsLast()
        return nn.Sequential(*patches, Windows(8, 2, 4, 2), Merged(8), Windows(16, 2, 4, 0), Means(), nn.Linear(16, 4))

    return classified(make, 2, 3, 16, 16)


# Convolutions.


class Residual(nn.Module):
    """A block of a ResNet (He et al. 2015)."""

    def __init__(self, old: int, new: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(old, new, 3, stride, 1, bias=False),
            nn.Conv2d(new, new, 3, 1, 1, bias=False),
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(new), nn.BatchNorm2d(new)])
        self.short = nn.Sequential(nn.Conv2d(old, new, 1, stride, bias=False), nn.BatchNorm2d(new))
        self.short = self.short if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)), inplace=True)
        return F.relu(self.norms[1](self.second(inner)) + self.short(x))


def resnet() -> Program:
    def make() -> nn.Module:
        stem = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        widths = (8, 8), (8, 16), (16, 24), (24, 32)
        blocks = [Residual(old, new, 1 + (old != new)) for old, new in widths]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))

    return classified(make, 4, 3, 32, 32)


class Modern(nn.Module):
    """A block of a ConvNeXt (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.scale = nn.Parameter(0.1 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.spread(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.mlp(inner)).permute(0, 3, 1, 2)


def convnext() -> Program:
    def make() -> nn.Module:
        first = nn.Conv2d(3, 8, 4, stride=4), Modern(8), Modern(8)
        second = nn.GroupNorm(1, 8), nn.Conv2d(8, 16, 2, stride=2), Modern(16)
        return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 4))

    return classified(make, 2, 3, 32, 32)


class Inverted(nn.Module):
    """A block of a MobileNet (Sandler et al. 2018), with the gate of Hu et al. 2018."""

    def __init__(self, old: int, new: int, stride: int) -> None:
        super().__init__()
        inner = 2 * old
        self.wide = nn.Sequential(nn.Conv2d(old, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish())
        self.deep = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, inner, 1), nn.Hardsigmoid())
        self.out = nn.Sequential(nn.Conv2d(inner, new, 1, bias=False), nn.BatchNorm2d(new))
        self.is_residual = old == new and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        inner = self.deep(self.wide(x))
        found = self.out(inner * self.gate(inner))
        return x + found if self.is_residual else found


def mobilenet() -> Program:
    def make() -> nn.Module:
        stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        blocks = Inverted(8, 8, 1), Inverted(8, 16, 2)
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4))

    made = classified(make, 4, 3, 16, 16)
    return made._replace(tolerance=1e-6)  # eager: torch's kernel for the derivative of hardsigmoid has 1/6 in float32


class Unet(nn.Module):
    """Ronneberger et al. 2015, with one level, attention at the bottom and a time that is added to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.GroupNorm(2, width), nn.SiLU())
        low = nn.Conv2d(width, 2 * width, 3, 2, 1), nn.GroupNorm(4, 2 * width), nn.SiLU(), nn.Dropout(0.1)
        self.deep, self.time = nn.Sequential(*low), nn.Linear(8, 2 * width)
        self.attention = nn.MultiheadAttention(2 * width, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Conv2d(3 + width, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        rates = torch.exp(torch.arange(4, dtype=x.dtype) * -2.0)
        waves = time[:, None] * rates
        high = self.down(x)
        low = self.deep(high) + self.time(torch.cat([waves.sin(), waves.cos()], 1))[..., None, None]
        tokens = low.flatten(2).transpose(1, 2)
        low = low + self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(low.shape)
        wide = F.interpolate(self.up(low), size=x.shape[-2:], mode="bilinear")
        return self.out(torch.cat([x, high + wide], 1))


def unet() -> Program:
    return training(lambda: Unet(8), lambda out: out.square().mean(), rows(2, 3, 8, 8), rows(2))


def per_sample_gradients() -> Program:
    def make() -> nn.Module:
        first = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*first, nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(1), nn.Linear(32, 4))

    net = net_of(make)

    def loss(params, image, label):
        return F.cross_entropy(net(params, image[None]), label[None])

    gradients = tp.vmap(tp.grad(loss), in_dims=(None, 0, 0))
    return Program(gradients, (net.params, rows(6, 1, 8, 8), words(4, 6)))


# Recurrent networks.


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6)
        self.layers = kind(6, 8, num_layers=2, batch_first=True, **options)
        self.out = nn.Linear(16 if options.get("bidirectional") else 8, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.layers(self.words(tokens))[0])


def lstm() -> Program:
    return _next_word(lambda: Recurrent(nn.LSTM, dropout=0.1))


def gru() -> Program:
    return _next_word(lambda: Recurrent(nn.GRU, bidirectional=True))


def _next_word(make: Callable[[], nn.Module]) -> Program:
    tokens = words(20, 3, 7)
    return training(make, lambda out: F.cross_entropy(out[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()), tokens)


# Numerical methods.


def gaussian_process() -> Program:
    """The log marginal likelihood (Rasmussen and Williams 2006, equation 2.30) and its gradient."""

    def likelihood(logs, x, y):
        scale, width, noise = logs.exp()
        squares = (x[:, None] - x).square().sum(-1) / width**2
        covariance = scale * torch.exp(-0.5 * squares) + noise * torch.eye(len(x), dtype=x.dtype)
        factor = torch.linalg.cholesky(covariance)
        solved = torch.cholesky_solve(y[:, None], factor)[:, 0]
        return -0.5 * y @ solved - factor.diagonal().log().sum()

    x = rows(20, 2)
    return Program(tp.value_and_grad(likelihood), (torch.tensor([0.1, 0.2, -1.0], dtype=D), x, x.sin().sum(1)))


def kalman_filter() -> Program:
    """The log likelihood of a linear Gaussian model, by a scan, and its gradient."""

    def likelihood(params, seen):
        move, look, spread, noise = (params[name] for name in ("move", "look", "spread", "noise"))

        def step(carry, y):
            mean, covariance = carry
            mean, covariance = move @ mean, move @ covariance @ move.T + torch.diag(spread.exp())
            error, total = y - look @ mean, look @ covariance @ look.T + torch.diag(noise.exp())
            gain = torch.linalg.solve(total, look @ covariance).T
            fit = error @ torch.linalg.solve(total, error) + torch.linalg.slogdet(total)[1]
            return (mean + gain @ error, covariance - gain @ look @ covariance), -0.5 * fit

        start = torch.zeros(4, dtype=D), torch.eye(4, dtype=D)
        return tp.scan(step, start, seen)[1].sum()

    params = {"move": 0.4 * rows(4, 4), "look": rows(2, 4, seed=1), "spread": rows(4, seed=2), "noise": rows(2, seed=3)}
    return Program(tp.value_and_grad(likelihood), (params, rows(12, 2, seed=4)))


def _mlp(*sizes: int) -> nn.Module:
    layers = [part for old, new in pairwise(sizes) for part in (nn.Linear(old, new), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def neural_ode() -> Program:
    """The gradient through 20 Runge-Kutta steps (Chen et al. 2018)."""
    net = net_of(lambda: _mlp(2, 16, 2))

    def loss(params, start, end):
        def step(_, x):
            h = 0.05
            a = net(params, x)
            b = net(params, x + h / 2 * a)
            c = net(params, x + h / 2 * b)
            return x + h / 6 * (a + 2 * b + 2 * c + net(params, x + h * c))

        return F.mse_loss(tp.fori_loop(0, 20, step, start), end)

    return Program(tp.value_and_grad(loss), (net.params, rows(8, 2), rows(8, 2, seed=1)))


def pinn() -> Program:
    """One step of Adam on the residual of Burgers' equation (Raissi et al. 2019)."""
    net = net_of(lambda: _mlp(2, 12, 12, 12, 1))
    optimizer = tp.optim.adam(1e-3)

    def u(params, x, t):
        return net(params, torch.stack([x, t])[None])[0, 0]

    def residual(params, x, t):
        slope = tp.grad(u, argnums=1)
        bent = tp.grad(slope, argnums=1)(params, x, t)
        return tp.grad(u, argnums=2)(params, x, t) + u(params, x, t) * slope(params, x, t) - 0.01 * bent

    def step(params, state, x, t):
        def loss(params):
            return tp.vmap(residual, in_dims=(None, 0, 0))(params, x, t).square().mean()

        value, grads = tp.value_and_grad(loss)(params)
        return *optimizer.step(grads, state, params), value

    return Program(step, (net.params, optimizer.init(net.params), rows(30).tanh(), rows(30, seed=1).sigmoid()))


def diffusion() -> Program:
    """One training step of Ho et al. 2020 with Adam, whose results take the memory of parameters and state."""
    net = net_of(lambda: Unet(32))  # so large that results take donated memory
    optimizer = tp.optim.chain(tp.optim.clip_by_global_norm(1.0), tp.optim.adam(1e-3))
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 50, dtype=D), 0)

    def step(params, state, images, key):
        k_time, k_noise, k_drop = tp.random.split(key, 3)
        time = tp.random.randint(k_time, (len(images),), 0, 50)
        noise = tp.random.normal(k_noise, images.shape, dtype=D)
        share = kept[time][:, None, None, None]
        noisy = share.sqrt() * images + (1 - share).sqrt() * noise

        def loss(params):
            return F.mse_loss(net.apply(params, net.state, noisy, time.to(D), key=k_drop)[0], noise)

        value, grads = tp.value_and_grad(loss)(params)
        return *optimizer.step(grads, state, params), value

    args = net.params, optimizer.init(net.params), rows(2, 3, 8, 8), KEY
    return Program(step, args, donate=(0, 1))


def ppo() -> Program:
    """The clipped update of Schulman et al. 2017: epochs and minibatches are scans."""
    actor, critic = net_of(lambda: _mlp(3, 16, 4)), net_of(lambda: _mlp(3, 16, 1))
    optimizer = tp.optim.chain(tp.optim.clip_by_global_norm(0.5), tp.optim.adam(3e-3))

    def loss(params, batch):
        seen, action, old, gain, target = batch
        logs = actor(params["actor"], seen).log_softmax(-1)
        ratio = (logs.gather(1, action[:, None])[:, 0] - old).exp()
        clipped = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        value = F.mse_loss(critic(params["critic"], seen)[:, 0], target)
        return 0.5 * value - clipped + 0.01 * (logs.exp() * logs).sum(-1).mean()

    def minibatch(carry, batch):
        params, state = carry
        value, grads = tp.value_and_grad(loss)(params, batch)
        return optimizer.step(grads, state, params), value

    def update(params, state, data, key):
        def epoch(carry, key):
            order = tp.random.permutation(key, 32).reshape(4, 8)
            return tp.scan(minibatch, carry, tp.tree.map(lambda leaf: leaf[order], data))

        return tp.scan(epoch, (params, state), tp.random.split(key, 3))

    params = {"actor": actor.params, "critic": critic.params}
    data = rows(32, 3), words(4, 32), -rows(32, seed=1).abs(), rows(32, seed=2), rows(32, seed=3)
    return Program(update, (params, optimizer.init(params), data, KEY))


def lbfgs() -> Program:
    """One step of L-BFGS with its line search on a least squares problem."""
    net = net_of(lambda: _mlp(2, 8, 1))
    optimizer = tp.optim.lbfgs(memory_size=3)
    x = rows(12, 2)

    def loss(params):
        return F.mse_loss(net(params, x)[:, 0], x.prod(1))

    def step(params, state):
        value, grads = tp.value_and_grad(loss)(params)
        return *optimizer.step(grads, state, params, value=value, grad=grads, value_fn=loss), value

    params, state, _ = step(net.params, optimizer.init(net.params))  # so that the memory has a pair
    return Program(step, (params, state))


def power_iteration() -> Program:
    """The largest eigenvalue of a Hessian, and its gradient, by products of the Hessian with vectors in a scan."""

    def largest(weight, x, v):
        def step(v, _):
            slope = tp.grad(lambda x: torch.tanh(weight @ x).square().sum())
            moved = tp.jvp(slope, (x,), (v,))[1]
            return moved / moved.norm(), v @ moved

        return tp.scan(step, v / v.norm(), length=8)[1][-1]

    return Program(tp.value_and_grad(largest), (rows(5, 5), rows(5, seed=1), rows(5, seed=2)))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "BERT": bert,
    "ConvNeXt": convnext,
    "GPT-2": gpt2,
    "GPT-2 in float32": lambda: gpt2(torch.float32)._replace(tolerance=1e-5),
    "GRU, both directions": gru,
    "Gaussian process": gaussian_process,
    "Kalman filter": kalman_filter,
    "L-BFGS step": lbfgs,
    "LSTM": lstm,
    "Llama": llama,
    "MobileNet": mobilenet,
    "PINN step": pinn,
    "PPO update": ppo,
    "ResNet": resnet,
    "Swin": swin,
    "U-Net": unet,
    "ViT": vit,
    "diffusion step, donated": diffusion,
    "neural ODE": neural_ode,
    "per-sample gradients": per_sample_gradients,
    "power iteration": power_iteration,
}
