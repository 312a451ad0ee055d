"""Matrix products that the kernel benchmarks time: name -> (m, n, k).

ResNet-50 and VGG16 are the convolutions of those networks at batch 1 as products over patches; BERT-base at three sequence
lengths; GPT-2 (124 M) decoding; squares; and small or ragged sizes.
"""

from __future__ import annotations


def _bert(length: int) -> dict[str, tuple[int, int, int]]:
    return {
        f"s{length}.proj": (length, 768, 768),
        f"s{length}.qkv": (length, 2304, 768),
        f"s{length}.scores": (length, length, 64),
        f"s{length}.ctx": (length, 64, length),
        f"s{length}.ffn1": (length, 3072, 768),
        f"s{length}.ffn2": (length, 768, 3072),
    }


_RESNET50 = (
    (12544, 64, 147), (3136, 64, 64), (3136, 64, 576), (3136, 256, 64), (3136, 64, 256), (3136, 128, 256), (784, 128, 1152),
    (784, 512, 128), (784, 512, 256), (784, 128, 512), (784, 256, 512), (196, 256, 2304), (196, 1024, 256), (196, 1024, 512),
    (196, 256, 1024), (196, 512, 1024), (49, 512, 4608), (49, 2048, 512), (49, 2048, 1024), (49, 512, 2048),
)  # fmt: skip
_VGG16 = (
    (50176, 64, 27), (50176, 64, 576), (12544, 128, 576), (12544, 128, 1152), (3136, 256, 1152), (3136, 256, 2304), (784, 512, 2304),
    (784, 512, 4608), (196, 512, 4608),
)  # fmt: skip
_EDGES = (
    (4, 4, 4), (8, 8, 8), (13, 13, 13), (16, 16, 16), (23, 23, 23), (32, 32, 32), (48, 48, 48), (49, 49, 49), (49, 64, 64), (7, 7, 512),
    (49, 49, 512), (77, 77, 64), (197, 64, 197), (50, 768, 768), (1, 1000, 2048), (100, 10, 1000), (10, 100, 1000), (1000, 10, 100),
    (5, 300, 300), (300, 5, 300), (17, 1000, 33),
)  # fmt: skip
SETS: dict[str, dict[str, tuple[int, int, int]]] = {
    "resnet50": {f"L{at}": shape for at, shape in enumerate(_RESNET50, start=1)},
    "bert": {**_bert(128), **_bert(384), **_bert(512)},
    "squares": {str(n): (n, n, n) for n in (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)},
    "vgg16": {f"L{at}": shape for at, shape in enumerate(_VGG16, start=1)},
    "edges": {"x".join(map(str, shape)): shape for shape in _EDGES},
    "decode": {
        "qkv.m1": (1, 2304, 768),
        "ffn1.m1": (1, 3072, 768),
        "ffn2.m1": (1, 768, 3072),
        "qkv.m4": (4, 2304, 768),
        "ffn1.m8": (8, 3072, 768),
    },
}
#: Set -> geometric means asked for: against OpenBLAS, and against the best library of each shape.
BARS = {
    "resnet50": (1.08, 1.00),
    "bert": (1.08, 1.00),
    "squares": (1.03, 0.97),
    "vgg16": (1.03, 0.98),
    "edges": (1.60, 0.95),
    "decode": (2.80, 1.00),
}
