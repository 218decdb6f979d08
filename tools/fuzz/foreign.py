"""First inputs for the target `import`: small files in both formats of torch.save. Needs no PyTorch: python3 foreign.py"""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

NAMES = ["conv1_7x7_s2.weight", "conv1_7x7_s2.bias", "fc.weight"]
SHAPE = (2, 3)


class Storage:
    """A place in the file, by its key."""

    def __init__(self, key):
        self.key = key


class Tensor:
    """Pickled as PyTorch pickles a tensor."""

    def __init__(self, key):
        self.storage = Storage(key)

    def __reduce__(self):
        arguments = (self.storage, 0, SHAPE, (SHAPE[1], 1), False, collections.OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return "storage", sys.modules["torch"].FloatStorage, thing.key, "cpu", 6
        return None


def modules():
    """Modules that hold the names which a pickle mentions."""
    for name, attribute in (("torch", "FloatStorage"), ("torch._utils", "_rebuild_tensor_v2")):
        module = sys.modules[name] = types.ModuleType(name)
        named = type(attribute, (), {"__module__": name})
        setattr(module, attribute, named)


def pickled(thing):
    out = io.BytesIO()
    Pickler(out, 2).dump(thing)
    return out.getvalue()


modules()
numbers = struct.pack("<6f", *range(6))
state = collections.OrderedDict((name, Tensor(str(key))) for key, name in enumerate(NAMES))
keys = [str(key) for key in range(len(NAMES))]

archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as file:
    file.writestr("weights/data.pkl", pickled(state))
    for key in keys:
        file.writestr(f"weights/data/{key}", numbers)

legacy = b"".join(
    [
        *(pickled(part) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})),
        pickled({"epoch": 3, "state_dict": state}),
        pickled(keys),
        *(struct.pack("<Q", 6) + numbers for _ in keys),
    ]
)

here = Path(__file__).parent / "corpus" / "import"
here.mkdir(parents=True, exist_ok=True)
(here / "zip.pth").write_bytes(archive.getvalue())
(here / "legacy.pth").write_bytes(legacy)
