import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from petra.plugins import ArtifactError, LoadedModel
from petra.runtimes.onnxruntime import OnnxRuntime


class Packed(OnnxRuntime):
    """ONNX Runtime, with files that are packed for a download and unpacked when they are loaded."""

    name, suffix = "acme.packed", ".onnxz"

    def export(self, model, example, path, interface=None) -> list[Path]:
        plain, *_ = super().export(model, example, path.with_suffix(".onnx"), interface)
        path.write_bytes(zlib.compress(plain.read_bytes()))
        plain.unlink()
        return [path]

    def load(self, path: Path) -> LoadedModel:
        try:
            unpacked = zlib.decompress(path.read_bytes())
        except (OSError, zlib.error) as error:
            raise ArtifactError(f"{path} cannot be unpacked: {error}") from error
        with TemporaryDirectory() as place:
            (plain := Path(place, "model.onnx")).write_bytes(unpacked)
            return super().load(plain)

    def snippet(self, file, inputs) -> str:
        lines = super().snippet(file, inputs)
        lines = lines.replace("Session(", "Session(zlib.decompress(open(", 1)
        return "import zlib\n" + lines.replace('")', '", "rb").read()))', 1)

    def operators(self, path: Path) -> None: ...
