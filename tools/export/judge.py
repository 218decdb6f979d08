"""Gives what `bninception export` writes to the programs that it is for, and compares their answers.

    python tools/export/judge.py [--program target/release/bninception]

Trains each preset's network for two steps, exports it in every form, and runs it on the same images:
ONNX models by ONNX Runtime behind the checker of onnx, weights by the public PyTorch port, hub folders by
timm, huggingface_hub and the PyTorch file inside. Prints a table; ends with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
IMAGES = 3
# Of the largest logit. f32 adds up in another order elsewhere; half precision has 11 bits of each weight,
# bf16 8.
LIMITS = {"f32": 1e-4, "f16": 1e-2, "bf16": 1e-1}
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# Presets with networks of their own, and image sizes; the others differ in training alone.
CASES = [
    ("bn-x5", 224, []),
    ("bn-x5", 64, []),
    ("bn-x5", 75, []),
    ("bn-x5", 224, ["network.pool_proj_4c4d=128"]),
    ("bn-x5-sigmoid", 64, []),
    ("inception", 224, []),
    ("inception", 64, []),
    ("googlenet", 224, []),
    ("googlenet", 77, []),
    ("small", 96, []),
    ("modern", 64, []),
]


class Judge:
    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.rows: list[tuple[str, float, float]] = []
        self.run("data", "demo", "pictures", "--train-per-class", 4, "--val-per-class", 2)

    def run(self, *arguments: object) -> str:
        command = [self.program, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
        return done.stdout

    def add(self, what: str, found: np.ndarray, expected: np.ndarray, limit: float) -> None:
        """Notes the largest difference of logits over the largest logit. A constant is no part of them:
        probabilities do not have it."""
        found, expected = (logits - logits.mean(axis=1, keepdims=True) for logits in (found, expected))
        error = np.abs(found - expected).max() / np.abs(expected).max()
        self.rows.append((what, float(error), limit))

    def case(self, preset: str, size: int, sets: list[str]) -> None:
        name = f"{preset} {size} px {' '.join(sets)}".strip()
        run = name.replace(" ", "_")
        sets = [part for text in [*sets, "data.crop_ratio=1"] for part in ("--set", text)]
        self.run("train", "--preset", preset, "--data-dir", "pictures", "--image-size", size,
                 "-b", 8, "--steps", 2, "--run-dir", run, *sets)  # fmt: skip
        checkpoint = f"{run}/last.safetensors"
        pixels, files = self.images(run, size)
        answers = json.loads(self.run("predict", checkpoint, *files, "--json", "--topk", 1000))
        classes = sorted(answer["class"] for answer in answers[0]["predictions"])
        expected = np.array([
            [{answer["class"]: answer["probability"] for answer in image["predictions"]}[name]
             for name in classes]
            for image in answers
        ])  # fmt: skip
        expected = np.log(expected)
        for storage, limit in LIMITS.items():
            for kept in ([], ["--keep-batch-norm"]):
                file = self.folder / f"{run}.onnx"
                self.run("export", checkpoint, "--onnx", file, "--storage", storage, "--overwrite",
                         *kept)  # fmt: skip
                what = f"{name}: ONNX Runtime, {storage}{', batch norm kept' if kept else ''}"
                self.add(what, logits_of_onnx(file, pixels, classes), expected, limit)
        self.run("export", checkpoint, "--onnx", file, "--softmax", "--overwrite")
        found = np.log(logits_of_onnx(file, pixels, classes))
        self.add(f"{name}: ONNX Runtime, probabilities", found, expected, LIMITS["f32"])
        if preset.startswith("bn-") and "sigmoid" not in preset:
            self.hub(name, checkpoint, pixels, expected)
        if size == 224 and "network.pool_proj_4c4d=128" in sets:
            self.port(name, checkpoint, pixels, expected)

    def images(self, run: str, size: int) -> tuple[np.ndarray, list[Path]]:
        random = np.random.default_rng(7)
        levels = random.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
        files = [self.folder / f"{run}-{index}.png" for index in range(IMAGES)]
        for file, image in zip(files, levels):
            Image.fromarray(image).save(file)
        pixels = (levels.astype(np.float32) / 255 - MEAN) / STD
        return pixels.transpose(0, 3, 1, 2).copy(), files

    def port(self, name: str, checkpoint: str, pixels: np.ndarray, expected: np.ndarray) -> None:
        import pretrainedmodels
        from safetensors.torch import load_file

        file = self.folder / "port.safetensors"
        self.run("export", checkpoint, "--safetensors", file, "--overwrite")
        port = pretrainedmodels.bninception(num_classes=expected.shape[1], pretrained=None).eval()
        port.load_state_dict(load_file(file))
        with torch.inference_mode():
            found = port(torch.from_numpy(pixels)).numpy()
        self.add(f"{name}: pretrainedmodels.bninception", found, expected, LIMITS["f32"])

    def hub(self, name: str, checkpoint: str, pixels: np.ndarray, expected: np.ndarray) -> None:
        import timm
        from huggingface_hub import ModelCard
        from safetensors.torch import load_file

        folder = self.folder / "hub"
        self.run("export", checkpoint, "--hub", folder, "--overwrite")
        card = ModelCard.load(folder / "README.md")
        if card.data.pipeline_tag != "image-classification" or not card.data.eval_results:
            raise SystemExit(f"{name}: huggingface_hub reads {card.data} in the front matter")

        scope: dict[str, object] = {"__name__": "bn_inception"}
        exec((folder / "bn_inception.py").read_text(), scope)  # as the page says: import it

        config, architecture, options = timm.models._hub.load_model_config_from_path(folder)
        if architecture != "bninception" or config["num_classes"] != expected.shape[1]:
            raise SystemExit(f"{name}: timm reads {architecture} in config.json")
        network = scope["BnInception"](config["num_classes"], **options).eval()
        network.load_state_dict(load_file(folder / "model.safetensors"))
        data = timm.data.resolve_data_config({}, pretrained_cfg=config)
        view = timm.data.create_transform(**data)
        files = sorted(self.folder.glob(f"{checkpoint.split('/')[0]}-*.png"))
        seen = torch.stack([view(Image.open(file).convert("RGB")) for file in files])
        with torch.inference_mode():
            found, by_timm = network(torch.from_numpy(pixels)).numpy(), network(seen).numpy()
        page = (folder / "README.md").read_text()
        code = page.split("```python\n")[1].split("```")[0].replace("IMAGE", str(files[0]))
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        said = done.stdout.split()[-1:] or ["nan"]
        if not abs(float(said[0]) - np.exp(expected[0].max())) < 1e-4:
            raise SystemExit(f"{name}: the code on the page prints {done.stdout}{done.stderr}")
        self.add(f"{name}: the hub folder in PyTorch", found, expected, LIMITS["f32"])
        self.add(f"{name}: the same behind timm's transform", by_timm, expected, LIMITS["f32"])


def logits_of_onnx(file: Path, pixels: np.ndarray, classes: list[str]) -> np.ndarray:
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    if json.loads(about["classes"]) != classes or json.loads(about["mean"]) != [0.485, 0.456, 0.406]:
        raise SystemExit(f"{file}: its metadata is {about}")
    whole = session.run(None, {"image": pixels})[0]
    single = session.run(None, {"image": pixels[:1]})[0]  # another batch size
    if np.abs(whole[:1] - single).max() > 1e-4 * np.abs(whole).max():
        raise SystemExit(f"{file}: an image alone has other logits than in a batch")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/bninception")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(arguments.program.resolve(), Path(folder))
        for preset, size, sets in CASES:
            judge.case(preset, size, sets)
    print("| export | largest difference, of the largest logit | limit |\n|---|---:|---:|")
    for what, error, limit in judge.rows:
        print(f"| {what} | {error:.1e} | {limit:.0e} |")
    missed = [what for what, error, limit in judge.rows if not error <= limit]
    if missed:
        sys.exit(f"missed: {missed}")


if __name__ == "__main__":
    main()
