"""Resizing and cropping as ONNX nodes that compute what Pillow computes, to the last bit.

The Resize of onnxruntime differs from Pillow at the edges, by up to 9 of 255 on photos. So each row and
column of the output is a row of a matrix here, with the weights of Pillow's filter in fixed-point numbers of
22 bits: `src/libImaging/Resample.c` of Pillow 13.0.0 (`precompute_coeffs`, `normalize_coeffs_8bpc`,
`ImagingResampleInner`). Sums are exact in float64. Only the pixels that the crop keeps are computed.
"""

from typing import TYPE_CHECKING

from leo_lightning.images.backbones.recipe import Recipe

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 18, 10
"""Versions of ONNX 1.16 (2024); torch writes networks for this opset or a later one."""
# The filters, as functions of x, the distance from the center of an output pixel
_BICUBIC = """
  minus_half = Constant<value = double {-0.5}>()
  c1_5 = Constant<value = double {1.5}>()
  two = Constant<value = double {2}>()
  c2_5 = Constant<value = double {2.5}>()
  four = Constant<value = double {4}>()
  five = Constant<value = double {5}>()
  eight = Constant<value = double {8}>()
  a = Mul(c1_5, x)   b = Sub(a, c2_5)   c = Mul(b, x)   d = Mul(c, x)   near = Add(d, one)
  e = Sub(x, five)   f = Mul(e, x)   g = Add(f, eight)   h = Mul(g, x)   k = Sub(h, four)
  far = Mul(k, minus_half)
  is_near = Less(x, one)
  is_far = Less(x, two)
  outer = Where(is_far, far, zero)
  weight = Where(is_near, near, outer)
"""
_BILINEAR = """
  falling = Sub(one, x)
  weight = Max(falling, zero)
"""
# Pillow's ITU-R 601-2 luma, in fixed-point numbers of 16 bits
_GRAY = """
  whole = Cast<to = 6>(image)
  luma = Constant<value = int32[3] {19595, 38470, 7471}>()
  two = Constant<value = int64[1] {2}>()
  parts = Mul(whole, luma)
  sum = ReduceSum<keepdims = 1>(parts, two)
  half = Constant<value = int32 {32768}>()
  full = Constant<value = int32 {65536}>()
  rounded = Add(sum, half)
  colors = Div(rounded, full)
"""
_TEXT = """
<ir_version: IR, opset_import: ["": OPSET, "pillow": 1]>
prepare (uint8[height, width, 3] image) => (uint8[1, CHANNELS, SIDE, SIDE] pixels) {
  zero = Constant<value = int64[1] {0}>()
  one = Constant<value = int64[1] {1}>()
  COLORS
  shape = Shape<start = 0, end = 2>(image)
  sides = Cast<to = 11>(shape)
  shorter = ReduceMin<keepdims = 1>(sides)
  resize = Constant<value = double[1] {RESIZE}>()
  enlarged = Mul(sides, resize)
  exact = Div(enlarged, shorter)
  resized = Floor(exact)
  old_height = Gather(sides, zero)
  old_width = Gather(sides, one)
  new_height = Gather(resized, zero)
  new_width = Gather(resized, one)
  rows = pillow.weights(old_height, new_height)
  columns_of_output = pillow.weights(old_width, new_width)
  columns = Transpose<perm = [1, 0]>(columns_of_output)
  maps = Transpose<perm = [2, 0, 1]>(colors)
  values = Cast<to = 11>(maps)
  shrunk = Sub(sides, resized)
  shrunk_height = Gather(shrunk, zero)
  shrunk_width = Gather(shrunk, one)
  twice = Add(shrunk_width, shrunk_width)
  none = Constant<value = double[1] {0}>()
  limit = Max(twice, none)
  is_tall = Greater(shrunk_height, limit)
  condition = Squeeze(is_tall)
  square = If (condition) <
    then_branch = vertical_first () => (double[a, b, c] tall) {
      v1 = MatMul(rows, values)
      v2 = pillow.rounded(v1)
      v3 = MatMul(v2, columns)
      tall = pillow.rounded(v3)
    },
    else_branch = horizontal_first () => (double[a, b, c] wide) {
      h1 = MatMul(values, columns)
      h2 = pillow.rounded(h1)
      h3 = MatMul(rows, h2)
      wide = pillow.rounded(h3)
    }
  >
  batch = Unsqueeze(square, zero)
  pixels = Cast<to = 2>(batch)
}
<domain: "pillow", opset_import: ["": OPSET]>
rounded (sum) => (value) {
  half = Constant<value = double {2097152}>()
  full = Constant<value = double {4194304}>()
  low = Constant<value = double {0}>()
  high = Constant<value = double {255}>()
  shifted = Add(sum, half)
  scaled = Div(shifted, full)
  whole = Floor(scaled)
  value = Clip(whole, low, high)
}
<domain: "pillow", opset_import: ["": OPSET]>
weights (old, new) => (fixed) {
  zero = Constant<value = double {0}>()
  half = Constant<value = double {0.5}>()
  one = Constant<value = double {1}>()
  side = Constant<value = double {SIDE}>()
  full = Constant<value = double {4194304}>()
  axis = Constant<value = int64[1] {1}>()
  scale = Div(old, new)
  stretch = Max(scale, one)
  spare = Sub(new, side)
  middle = Mul(spare, half)
  first = Round(middle)
  counted = Range(zero, side, one)
  place = Add(counted, first)
  place_center = Add(place, half)
  center = Mul(place_center, scale)
  center_column = Unsqueeze(center, axis)
  length = Squeeze(old)
  source = Range(zero, length, one)
  source_center = Add(source, half)
  offset = Sub(source_center, center_column)
  signed = Div(offset, stretch)
  x = Abs(signed)
  FILTER
  total = ReduceSum<keepdims = 1>(weight, axis)
  share = Div(weight, total)
  large = Mul(share, full)
  size = Abs(large)
  shifted = Add(size, half)
  whole = Floor(shifted)
  sign = Sign(large)
  fixed = Mul(whole, sign)
}
"""


def preparation(recipe: Recipe) -> "ModelProto":
    """Return the model from `image`, uint8 (height, width, 3), to `pixels`, uint8 (1, channels, S, S).

    Args:
        recipe: names size, filter and number of channels; its crop is the center.
    """
    from onnx import checker, inliner, parser

    values = {
        "COLORS": _GRAY if recipe.channels == 1 else "colors = Identity(image)",
        "FILTER": _BICUBIC if recipe.interpolation == "bicubic" else _BILINEAR,
        "CHANNELS": str(recipe.channels),
        "RESIZE": str(recipe.resize),
        "SIDE": str(recipe.image_size),
        "OPSET": str(OPSET),
        "IR": str(IR_VERSION),
    }
    text = _TEXT
    for name, value in values.items():
        text = text.replace(name, value)
    model = inliner.inline_local_functions(parser.parse_model(text))
    checker.check_model(model, full_check=True)
    return model
