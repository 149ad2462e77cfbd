"""Lets torchvision be imported beside a CPU build of torch, in the benchmark environment only.

torchvision's wheel is compiled for CUDA; beside CPU torch its library does not load, and its import fails where it gives shapes to
two operators that were then never declared. Declaring the two schemas is enough: no benchmark calls them. Import this module first.
"""

import torch

OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
