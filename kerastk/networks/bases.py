"""The pretrained networks: `mini`, which ships with kerastk, and every family of `keras.applications`.

The files, their folders and their hashes are those that Keras 3.15 asks for (a test compares). MobileNet V1 and V2 have
no hash in Keras; `weights` records theirs on first use.
"""

import difflib
import re
from dataclasses import dataclass

from kerastk.errors import RecipeError

ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True, slots=True)
class Base:
    """A row of `BASES`.

    `function` is the name in `keras.applications`, or "mini"; `image_size` its own input size in pixels; `scaling` what
    is done to pixel values in front of it: `caffe` (BGR minus ImageNet's means), `torch` (ImageNet's mean and deviation), `tf`
    (-1 to 1) or `inside` (it does so itself). `file` in `folder` holds its ImageNet weights without the head, `hash`
    their MD5 or SHA-256 as Keras declares it; `remote` is the file's name at the address where that differs.
    """

    function: str
    image_size: int
    scaling: str
    folder: str
    file: str
    hash: str
    alpha: float | None = None
    remote: str = ""

    @property
    def ships(self) -> bool:
        """Whether its weights come with kerastk: `file` lies in the folder `models/` there."""
        return self.function == "mini"

    @property
    def address(self) -> str:
        """Where Keras downloads the weights."""
        # The first EfficientNets lie in a place of their own.
        start = ADDRESS.replace("tensorflow/", "") if self.folder == "." else ADDRESS + self.folder + "/"
        return start + (self.remote or self.file)

    @property
    def smallest(self) -> int:
        """Smallest input that Keras accepts, in pixels."""
        return {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}.get(self.function, 32)

    @property
    def family(self) -> str:
        """The family's name: `ResNet50V2` is a `ResNetV2`, `EfficientNetB3` an `EfficientNet`."""
        if self.function.startswith("Inception"):
            return self.function
        name = re.sub(r"(?<=NetV2)[BSML]\d?$|B\d$", "", self.function)
        name = re.sub(r"\d{2,3}", "", name)
        return re.sub(r"(?<!^)(XLarge|Tiny|Small|Base|Large|Mobile)$", "", name)


# fmt: off
BASES: dict[str, Base] = {
    "mini": Base("mini", 96, "tf", "mini", "mini.weights.h5", "b7471f0e2d5f2bd5149888a1ff27c3226f4a2e1516cd2dca75050185383e09a9"),
    "vgg16": Base("VGG16", 224, "caffe", "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
    "vgg19": Base("VGG19", 224, "caffe", "vgg19", "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5", "253f8cb515780f3b799900260a226db6"),
    "resnet50": Base("ResNet50", 224, "caffe", "resnet", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"),
    "resnet101": Base("ResNet101", 224, "caffe", "resnet", "resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5", "88cf7a10940856eca736dc7b7e228a21"),
    "resnet152": Base("ResNet152", 224, "caffe", "resnet", "resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    "resnet50_v2": Base("ResNet50V2", 224, "tf", "resnet", "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "fac2f116257151a9d068a22e544a4917"),
    "resnet101_v2": Base("ResNet101V2", 224, "tf", "resnet", "resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "c0ed64b8031c3730f411d2eb4eea35b5"),
    "resnet152_v2": Base("ResNet152V2", 224, "tf", "resnet", "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "ed17cf2e0169df9d443503ef94b23b33"),
    "inception_v3": Base("InceptionV3", 299, "tf", "inception_v3", "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5", "bcbd6486424b2319ff4ef7d526e38f63"),
    "inception_resnet_v2": Base("InceptionResNetV2", 299, "tf", "inception_resnet_v2", "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "d19885ff4a710c122648d3b5c3b684e4"),
    "xception": Base("Xception", 299, "tf", "xception", "xception_weights_tf_dim_ordering_tf_kernels_notop.h5", "b0042744bf5b25fce3cb969f33bebb97"),
    "mobilenet": Base("MobileNet", 224, "tf", "mobilenet", "mobilenet_1_0_224_tf_no_top.h5", ""),
    "mobilenet_0.75": Base("MobileNet", 224, "tf", "mobilenet", "mobilenet_7_5_224_tf_no_top.h5", "", alpha=0.75),
    "mobilenet_0.5": Base("MobileNet", 224, "tf", "mobilenet", "mobilenet_5_0_224_tf_no_top.h5", "", alpha=0.5),
    "mobilenet_0.25": Base("MobileNet", 224, "tf", "mobilenet", "mobilenet_2_5_224_tf_no_top.h5", "", alpha=0.25),
    "mobilenet_v2_1.4": Base("MobileNetV2", 224, "tf", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_224_no_top.h5", "", alpha=1.4),
    "mobilenet_v2_1.3": Base("MobileNetV2", 224, "tf", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.3_224_no_top.h5", "", alpha=1.3),
    "mobilenet_v2": Base("MobileNetV2", 224, "tf", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", ""),
    "mobilenet_v2_0.75": Base("MobileNetV2", 224, "tf", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.75_224_no_top.h5", "", alpha=0.75),
    "mobilenet_v2_0.5": Base("MobileNetV2", 224, "tf", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_224_no_top.h5", "", alpha=0.5),
    "mobilenet_v2_0.35": Base("MobileNetV2", 224, "tf", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5", "", alpha=0.35),
    "mobilenet_v3_large": Base("MobileNetV3Large", 224, "inside", "mobilenet_v3", "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "07fb09a5933dd0c8eaafa16978110389"),
    "mobilenet_v3_large_0.75": Base("MobileNetV3Large", 224, "inside", "mobilenet_v3", "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5", "40af19a13ebea4e2ee0c676887f69a2e", alpha=0.75),
    "mobilenet_v3_small": Base("MobileNetV3Small", 224, "inside", "mobilenet_v3", "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    "mobilenet_v3_small_0.75": Base("MobileNetV3Small", 224, "inside", "mobilenet_v3", "weights_mobilenet_v3_small_224_0.75_float_no_top_v2.h5", "ebdb5cc8e0b497cd13a7c275d475c819", alpha=0.75),
    "densenet121": Base("DenseNet121", 224, "torch", "densenet", "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5", "30ee3e1110167f948a6b9946edeeb738"),
    "densenet169": Base("DenseNet169", 224, "torch", "densenet", "densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5", "b8c4d4c20dd625c148057b9ff1c1176b"),
    "densenet201": Base("DenseNet201", 224, "torch", "densenet", "densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    "nasnet_mobile": Base("NASNetMobile", 224, "tf", "nasnet", "nasnet_mobile_no_top.h5", "1ed92395b5b598bdda52abe5c0dbfd63", remote="NASNet-mobile-no-top.h5"),
    "nasnet_large": Base("NASNetLarge", 331, "tf", "nasnet", "nasnet_large_no_top.h5", "d81d89dc07e6e56530c4e77faddd61b5", remote="NASNet-large-no-top.h5"),
    "efficientnet_b0": Base("EfficientNetB0", 224, "inside", ".", "efficientnetb0_notop.h5", "50bc09e76180e00e4465e1a485ddc09d"),
    "efficientnet_b1": Base("EfficientNetB1", 240, "inside", ".", "efficientnetb1_notop.h5", "74c4e6b3e1f6a1eea24c589628592432"),
    "efficientnet_b2": Base("EfficientNetB2", 260, "inside", ".", "efficientnetb2_notop.h5", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    "efficientnet_b3": Base("EfficientNetB3", 300, "inside", ".", "efficientnetb3_notop.h5", "af6d107764bb5b1abb91932881670226"),
    "efficientnet_b4": Base("EfficientNetB4", 380, "inside", ".", "efficientnetb4_notop.h5", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    "efficientnet_b5": Base("EfficientNetB5", 456, "inside", ".", "efficientnetb5_notop.h5", "38879255a25d3c92d5e44e04ae6cec6f"),
    "efficientnet_b6": Base("EfficientNetB6", 528, "inside", ".", "efficientnetb6_notop.h5", "9ecce42647a20130c1f39a5d4cb75743"),
    "efficientnet_b7": Base("EfficientNetB7", 600, "inside", ".", "efficientnetb7_notop.h5", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    "efficientnet_v2_b0": Base("EfficientNetV2B0", 224, "inside", "efficientnet_v2", "efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff"),
    "efficientnet_v2_b1": Base("EfficientNetV2B1", 240, "inside", "efficientnet_v2", "efficientnetv2-b1_notop.h5", "0e80663031ca32d657f9caa404b6ec37"),
    "efficientnet_v2_b2": Base("EfficientNetV2B2", 260, "inside", "efficientnet_v2", "efficientnetv2-b2_notop.h5", "1dfe2e7a5d45b6632553a8961ea609eb"),
    "efficientnet_v2_b3": Base("EfficientNetV2B3", 300, "inside", "efficientnet_v2", "efficientnetv2-b3_notop.h5", "f6abf7b5849ac99a89b50dd3fd532856"),
    "efficientnet_v2_s": Base("EfficientNetV2S", 384, "inside", "efficientnet_v2", "efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"),
    "efficientnet_v2_m": Base("EfficientNetV2M", 480, "inside", "efficientnet_v2", "efficientnetv2-m_notop.h5", "1b8dc055df72dde80d614482840fe342"),
    "efficientnet_v2_l": Base("EfficientNetV2L", 480, "inside", "efficientnet_v2", "efficientnetv2-l_notop.h5", "b0b66b5c863aef5b46e8608fe1711615"),
    "convnext_tiny": Base("ConvNeXtTiny", 224, "inside", "convnext", "convnext_tiny_notop.h5", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    "convnext_small": Base("ConvNeXtSmall", 224, "inside", "convnext", "convnext_small_notop.h5", "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    "convnext_base": Base("ConvNeXtBase", 224, "inside", "convnext", "convnext_base_notop.h5", "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    "convnext_large": Base("ConvNeXtLarge", 224, "inside", "convnext", "convnext_large_notop.h5", "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    "convnext_xlarge": Base("ConvNeXtXLarge", 224, "inside", "convnext", "convnext_xlarge_notop.h5", "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
}
# fmt: on


def find(name: str) -> str:
    """The name in `BASES` for a name as people write it: `ResNet50V2`, `resnet50v2` and `resnet50_v2` are one.

    Raises:
        RecipeError: there is no such base; the message names the nearest.
    """
    plain = {_plain(key): key for key in BASES}
    if _plain(name) in plain:
        return plain[_plain(name)]
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(plain[each] for each in near)}?" if near else "`kerastk bases` lists them."
    raise RecipeError(f"no base is called {name!r}. {hint}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
