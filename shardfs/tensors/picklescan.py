"""Finds the tensors that a torch pickle describes, without unpickling it.

The opcodes are followed on values that do nothing: a global is its name, a call is a record of what
would be called. No module is imported, no object is built, and the work is bounded by the limits below.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from typing import Any, Final, NamedTuple, TypeGuard

from shardfs.tensors.dtypes import BLOCKS
from shardfs.tensors.layout import MAX_NAME, checked_shape

MAX_PICKLE: Final = 16 << 20  # bytes; a tensor takes 100 to 200
MAX_OPERATIONS: Final = 1_000_000  # about 45 per tensor; 150 MB and one second at the very worst
MAX_VIEWS: Final = MAX_OPERATIONS // 20  # a tensor that is no alias takes more operations than that
MAX_DEPTH: Final = 256  # containers in containers

_STORAGE_DTYPES: Final = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "uint8",
}
_REBUILD_TENSOR: Final = frozenset(
    {
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_qtensor",
    }
)
_REBUILD_SUBCLASS: Final = "torch._tensor _rebuild_from_type_v2"
_BROKEN: Final = (ValueError, IndexError, KeyError, TypeError, RecursionError)  # what a malformed pickle raises
_MODULE_DICTS: Final = frozenset({"_parameters", "_buffers", "_modules"})


class View(NamedTuple):
    """A tensor as a pickle describes it.

    `offset` and `span` (from the first to behind the last element, gaps included) count elements of
    `dtype` in storage `key`, which holds `storage_size` bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    key: str
    storage_size: int
    offset: int
    span: int


class _Global(NamedTuple):
    name: str  # "module name"


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _Node:
    """A container, or what a call would give; `items` are its (key, value) pairs."""

    __slots__ = ("arguments", "function", "items")

    def __init__(self, function: str | None = None, arguments: object = None) -> None:
        self.function = function
        self.arguments: Any = arguments
        self.items: list[tuple[object, object]] | None = None

    def add(self, key: object, value: object) -> None:
        if self.items is None:
            self.items = []
        self.items.append((key, value))

    def extend(self, values: list[object]) -> None:
        for value in values:
            self.add(len(self.items or ()), value)


def scan(pickle: bytes | BytesIO, limit: int = MAX_OPERATIONS) -> list[View] | None:
    """The tensors of a pickle in the order of their names in it, aliases included.

    Names join the keys that lead to a tensor with dots, as state dicts do.

    Args:
        pickle: at most `MAX_PICKLE` bytes; a stream is left behind the pickle that it starts with.
        limit: of operations.

    Returns:
        None when the bytes are not a pickle, exceed the limits, or describe an impossible tensor.
    """
    try:
        views = list(islice(_views(_Machine().run(pickle, limit)), MAX_VIEWS + 1))
    except _BROKEN:
        return None
    return views if len(views) <= MAX_VIEWS else None


def scan_strings(pickle: BytesIO, limit: int) -> list[str] | None:
    """The strings in the list that a pickle holds, as `scan` reads it; None if it holds anything else."""
    try:
        root = _Machine().run(pickle, limit)
    except _BROKEN:
        return None
    if not isinstance(root, _Node) or root.function is not None:
        return None
    values = [value for _, value in root.items or ()]
    return [value for value in values if isinstance(value, str)] if all(isinstance(v, str) for v in values) else None


class _Machine:
    """Follows opcodes; a malformed pickle raises one of `_BROKEN`."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes | BytesIO, limit: int) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if count >= limit:
                raise ValueError("pickle of too many operations")
            if opcode.name == "STOP":
                break
            handler = _HANDLERS.get(opcode.name)
            if handler is not None:
                handler(self, argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            else:
                self._stack.append(argument)
        return self._stack.pop()

    def _skip(self, _: object) -> None:
        pass

    def _mark(self, _: object) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._marks.pop()
        return values

    def _pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: object) -> None:
        self._since_mark()

    def _dup(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: Any) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, _: object) -> None:
        values = tuple(self._since_mark())
        self._stack.append(values)

    def _tuple_of(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) != count:
            raise IndexError("tuple of more than the stack holds")
        del self._stack[-count:]
        self._stack.append(values)

    def _empty(self, _: object) -> None:
        self._stack.append(_Node())

    def _list(self, _: object) -> None:
        node = _Node()
        node.extend(self._since_mark())
        self._stack.append(node)

    def _dict(self, _: object) -> None:
        values = self._since_mark()
        self._stack.append(_Node())
        self._set_pairs(values)

    def _append(self, _: object) -> None:
        value = self._stack.pop()
        self._top().extend([value])

    def _appends(self, _: object) -> None:
        values = self._since_mark()
        self._top().extend(values)

    def _set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top().add(key, value)

    def _set_items(self, _: object) -> None:
        self._set_pairs(self._since_mark())

    def _set_pairs(self, values: list[Any]) -> None:
        node = self._top()
        for key, value in zip(values[::2], values[1::2], strict=True):
            node.add(key, value)

    def _top(self) -> _Node:
        node = self._stack[-1]
        if not isinstance(node, _Node):
            raise TypeError("items for what is no container")
        return node

    def _global(self, name: Any) -> None:
        self._stack.append(_Global(name))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str) or len(name) + len(module) > MAX_NAME:
            raise ValueError("global without a name")  # as text, a tuple of tuples may grow without bound
        self._stack.append(_Global(f"{module} {name}"))

    def _call(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_record(function, arguments))

    def _call_keywords(self, _: object) -> None:
        keywords = self._stack.pop()
        self._call(None)
        self._top().add("", keywords)

    def _call_marked(self, _: object) -> None:
        function, *arguments = self._since_mark()
        self._stack.append(_record(function, tuple(arguments)))

    def _instance(self, name: Any) -> None:
        self._stack.append(_Node(name, tuple(self._since_mark())))

    def _build(self, _: object) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], _Node):
            self._stack[-1].add("", state)

    def _persistent(self, _: object) -> None:
        self._stack.append(_storage(self._stack.pop()))

    def _nothing(self, _: object) -> None:
        self._stack.append(None)


_CONSTANTS: Final[dict[str, object]] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_HANDLERS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), _Machine._skip),
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": _Machine._dup,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine._put),
    "MEMOIZE": _Machine._memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._get),
    **dict.fromkeys(("TUPLE", "FROZENSET"), _Machine._tuple),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), _Machine._empty),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine._appends),
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine._call),
    "NEWOBJ_EX": _Machine._call_keywords,
    "OBJ": _Machine._call_marked,
    "INST": _Machine._instance,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
    **dict.fromkeys(("PERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"), _Machine._nothing),
}


def _record(function: object, arguments: object) -> _Node:
    return _Node(function.name if isinstance(function, _Global) else None, arguments)


def _storage(identity: object) -> _Storage | None:
    """The storage that torch's persistent id ("storage", class, key, device, elements) names."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        return None
    _, kind, key, _, elements = identity[:5]
    if not isinstance(kind, _Global) or not isinstance(key, str) or checked_shape([elements]) is None:
        return None
    dtype = _STORAGE_DTYPES.get(kind.name.rpartition(" ")[2])
    if dtype is None:
        return None
    return _Storage(dtype, key, elements * BLOCKS[dtype][1])


def _views(root: object) -> Iterator[View]:
    """Walk what the pickle describes, every container once, in order."""
    # By id, as lists and dicts have no hash; the value is kept so that its id stays its own.
    seen: dict[int, object] = {}
    pending: list[Iterator[tuple[str, object]]] = [iter([("", root)])]
    while pending:
        name, value = next(pending[-1], (None, None))
        if name is None:
            pending.pop()
        elif isinstance(value, _Node) and value.function in _REBUILD_TENSOR:
            # Not remembered: an alias is another name, and whoever counts decides.
            yield _view(name, value.function, value.arguments)
        elif _is_container(value) and id(value) not in seen:
            if len(pending) > MAX_DEPTH:
                raise ValueError("pickle of too deep a nesting")
            seen[id(value)] = value
            pending.append(_children(name, value))


def _is_container(value: object) -> TypeGuard[_Node | tuple[object, ...]]:
    return isinstance(value, (_Node, tuple)) and not isinstance(value, (_Global, _Storage))


def _children(name: str, value: _Node | tuple[object, ...]) -> Iterator[tuple[str, object]]:
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield _joined(name, index), item
        return
    arguments = value.arguments if isinstance(value.arguments, tuple) else ()
    if value.function == _REBUILD_SUBCLASS and len(arguments) == 4:
        function, _, inner, state = arguments
        yield name, _record(function, inner)
        yield name, state
    elif value.function is not None and value.function.endswith((" _rebuild_parameter", "_with_state")):
        yield name, arguments[0]
    else:
        for index, item in enumerate(arguments):
            yield _joined(name, index), item
    for key, item in value.items or ():
        yield _joined(name, key), item


def _joined(name: str, key: object) -> str:
    if key == "" or (isinstance(key, str) and key in _MODULE_DICTS):
        return name
    if isinstance(key, int):
        part = str(key) if abs(key) < 1 << 63 else "?"
    else:
        part = key[:MAX_NAME] if isinstance(key, str) else "?"
    return f"{name}.{part}"[:MAX_NAME] if name else part


def _view(name: str, function: str, arguments: Any) -> View:
    storage, offset, sizes, strides = arguments[:4]
    # torch.Size is a call with the plain tuple as its one argument.
    shape = checked_shape(sizes.arguments[0] if isinstance(sizes, _Node) else sizes)
    stride = checked_shape(strides) if strides else ()
    if not isinstance(storage, _Storage) or shape is None or stride is None:
        raise ValueError("tensor without a storage or shape")
    if len(shape) != len(stride) or checked_shape([offset]) is None:
        raise ValueError("tensor of impossible strides")
    dtype = storage.dtype
    if function.endswith("_v3"):
        dtype = _dtype(arguments[6])
    span = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    return View(name, dtype, shape, storage.key, storage.size, offset, span)


def _dtype(value: object) -> str:
    name = value.name.rpartition(" ")[2] if isinstance(value, _Global) else ""
    if name not in BLOCKS or BLOCKS[name][0] != 1:
        raise ValueError("tensor of unknown dtype")
    return name
