"""A picture of autograd's graph, as text in the language of Graphviz."""

from collections.abc import Iterable, Mapping
from types import GeneratorType
from typing import Any

import torch
from torch import Tensor

from . import pytree
from .utils import ModuleState

__all__ = ["make_dot", "resize_graph"]

_SAVED = "_saved_"
_NODE = {
    "style": "filled",
    "shape": "box",
    "align": "left",
    "fontsize": "10",
    "ranksep": "0.1",
    "height": "0.2",
    "fontname": "monospace",
}


class Digraph:
    """The part of graphviz.Digraph that writes text, for machines without that package."""

    def __init__(self, node_attr: Mapping[str, str], graph_attr: Mapping[str, str]) -> None:
        """Make an empty graph."""
        self.node_attr, self.graph_attr, self.body = dict(node_attr), dict(graph_attr), list[str]()

    def node(self, name: str, label: str | None = None, **attrs: str | None) -> None:
        """Add a node."""
        self.body.append(f"\t{name}{_attributes({'label': label, **attrs})}\n")

    def edge(self, tail_name: str, head_name: str, **attrs: str | None) -> None:
        """Add an edge."""
        self.body.append(f"\t{tail_name} -> {head_name}{_attributes(attrs)}\n")

    @property
    def source(self) -> str:
        """The text."""
        head = f"\tgraph{_attributes(self.graph_attr)}\n\tnode{_attributes(self.node_attr)}\n"
        return "digraph {\n" + head + "".join(self.body) + "}\n"

    def save(self, filename: str) -> str:
        """Write the text to a file, and return its name."""
        with open(filename, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(self.source)
        return filename


def _attributes(attrs: Mapping[str, str | None]) -> str:
    quoted = {key: str(v).replace('"', r"\"").replace("\n", r"\n") for key, v in attrs.items() if v is not None}
    return " [" + " ".join(f'{key}="{value}"' for key, value in quoted.items()) + "]" if quoted else ""


def _empty_graph() -> Any:
    try:
        from graphviz import Digraph as Graph
    except ImportError:
        Graph = Digraph
    return Graph(node_attr=_NODE, graph_attr={"size": "12,12"})


def make_dot(
    var: Any,
    params: Mapping[str, Tensor] | ModuleState | Iterable[Any] | None = None,
    show_attrs: bool = False,
    show_saved: bool = False,
    max_attr_chars: int = 50,
) -> Any:
    """Draw the graph behind the tensors of a tree; `.source` is its text, which needs no Graphviz.

    `params` names tensors: a dict, pairs from `named_parameters()`, the state of
    `extract_state_dict(enable_visual=True)`, or several of them. `show_attrs` adds what the nodes have saved,
    `show_saved` adds saved tensors as nodes.

    >>> weight = torch.ones(2, requires_grad=True)
    >>> "MulBackward0" in make_dot((weight * 2).sum(), {"weight": weight}).source
    True
    """
    drawing = _Drawing(_names(params), show_attrs, show_saved, max_attr_chars)
    pytree.tree_map_(drawing.add_tensor, var)
    resize_graph(drawing.dot)
    return drawing.dot


def resize_graph(dot: Any, size_per_element: float = 0.5, min_size: float = 12.0) -> None:
    """Set the size of the picture by the number of its parts, in place."""
    size = max(min_size, len(dot.body) * size_per_element)
    dot.graph_attr.update(size=f"{size},{size}")


def _names(params: Any) -> dict[Any, Any]:
    """Map tensors to names, and nodes of the graph to (name, tensor)."""
    if params is None:
        return {}
    if isinstance(params, ModuleState):
        return dict(params.visual_contents or {})
    if isinstance(params, Mapping):
        return {tensor: name for name, tensor in params.items()}
    if isinstance(params, GeneratorType):
        return {tensor: name for name, tensor in params}
    return {key: value for part in params for key, value in _names(part).items()}


def _label(tensor: Tensor, name: str = "") -> str:
    return f"{name}\n({', '.join(map(str, tensor.shape))})"


class _Drawing:
    def __init__(self, names: dict[Any, Any], show_attrs: bool, show_saved: bool, width: int) -> None:
        self.names, self.show_attrs, self.show_saved, self.width = names, show_attrs, show_saved, max(width, 3)
        self.dot, self.seen = _empty_graph(), set()

    def add_tensor(self, tensor: Tensor, color: str = "darkolivegreen1") -> None:
        """Draw a tensor, and the graph behind it."""
        if tensor in self.seen:
            return
        self.seen.add(tensor)
        self.dot.node(str(id(tensor)), _label(tensor, self.names.get(tensor, "")), fillcolor=color)
        if tensor.grad_fn is not None:
            self.add_graph(tensor.grad_fn)
            self.dot.edge(str(id(tensor.grad_fn)), str(id(tensor)))
        if tensor._is_view() and tensor._base is not None:
            self.add_tensor(tensor._base, color="darkolivegreen3")
            self.dot.edge(str(id(tensor._base)), str(id(tensor)), style="dotted")

    def add_graph(self, root: Any) -> None:
        """Draw a node of the graph and all that it depends on. Long graphs need no recursion."""
        stack = [root]
        while stack:
            node = stack.pop()
            if node in self.seen:
                continue
            self.seen.add(node)
            self.add_node(node)
            following = [following for following, _ in getattr(node, "next_functions", ()) if following is not None]
            for other in following:
                self.dot.edge(str(id(other)), str(id(node)))
            stack.extend(reversed(following))

    def add_node(self, node: Any) -> None:
        """Draw one node, with its leaf tensor and what it has saved."""
        if self.show_saved:
            self.add_saved(node)
        if hasattr(node, "variable"):
            self.seen.add(node.variable)
            label = _label(node.variable, self.names.get(node.variable, ""))
            self.dot.node(str(id(node.variable)), label, fillcolor="lightblue")
            self.dot.edge(str(id(node.variable)), str(id(node)))
        text, named = _describe(node, self.show_attrs, self.width), self.names.get(node)
        if named is not None:
            text = f"{text}\n{_label(named[1], named[0])}"
        self.dot.node(str(id(node)), text, fillcolor=None if named is None else "lightblue")

    def add_saved(self, node: Any) -> None:
        """Draw the tensors that a node has saved."""
        for name, value in _saved(node).items():
            parts = {name: value} if isinstance(value, Tensor) else {}
            if isinstance(value, tuple):
                parts = {f"{name}[{i}]": part for i, part in enumerate(value) if isinstance(part, Tensor)}
            for label, tensor in parts.items():
                self.seen.add(tensor)  # keeps it alive: its id is its name in the picture
                self.dot.edge(str(id(node)), str(id(tensor)), dir="none")
                self.dot.node(str(id(tensor)), _label(tensor, label), fillcolor="orange")


def _saved(node: Any) -> dict[str, Any]:
    return {name.removeprefix(_SAVED): getattr(node, name) for name in dir(node) if name.startswith(_SAVED)}


def _describe(node: Any, show_attrs: bool, width: int) -> str:
    """Return the name of a node, and a table of what it has saved."""
    name = type(node).__name__
    rows = {key: _short(value, width) for key, value in _saved(node).items()} if show_attrs else {}
    if not rows:
        return name
    left, right = max(map(len, rows)), max(map(len, rows.values()))
    line = "-" * max(left + right + 2, len(name))
    return "\n".join([name, line, *(f"{key:<{left}}: {value:>{right}}" for key, value in rows.items())])


def _short(value: Any, width: int) -> str:
    if isinstance(value, Tensor):
        text = "[saved tensor]"
    elif isinstance(value, tuple) and any(map(torch.is_tensor, value)):
        text = "[saved tensors]"
    else:
        text = str(value)
    return text if len(text) <= width else text[: width - 3] + "..."
