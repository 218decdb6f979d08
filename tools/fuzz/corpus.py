"""First inputs for the targets `checkpoint` and `metadata`: python3 corpus.py CHECKPOINT"""

import json
import struct
import sys
from pathlib import Path

with open(sys.argv[1], "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))

about = header["__metadata__"]
few = {name: header[name] for name in ("__metadata__", "last_linear.bias") if name in header}
size = 4 * header["last_linear.bias"]["shape"][0]
few["last_linear.bias"]["data_offsets"] = [0, size]

here = Path(__file__).parent / "corpus"
for target in ("checkpoint", "metadata"):
    (here / target).mkdir(parents=True, exist_ok=True)
(here / "metadata" / "stored.json").write_text(about["bninception"])
for name, entries in (("no_tensors", {"__metadata__": about}), ("one_tensor", few)):
    text = json.dumps(entries).encode()
    data = bytes(size if name == "one_tensor" else 0)
    (here / "checkpoint" / name).write_bytes(struct.pack("<Q", len(text)) + text + data)
