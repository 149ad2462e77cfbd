"""Public data sets that the house knows how to read, with their options. Their files come from EVERLEARN_DATA.

References: Krizhevsky (2009), Learning multiple layers of features from tiny images (CIFAR-100); LeCun, Bottou, Bengio & Haffner
(1998), Gradient-based learning applied to document recognition (MNIST); Lake, Salakhutdinov & Tenenbaum (2015), Human-level
concept learning through probabilistic program induction (Omniglot).
"""

from dataclasses import replace

import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.dataset import Data
from everlearn.data.folders import find, read, where


def cifar100_12k(labels: str = "fine") -> Data:
    """CIFAR-100 in small: 100 training and 20 test images of each of 100 classes, 3x32x32, with their 20 superclasses.

    labels: "fine" (100 classes) or "coarse" (20 superclasses). x is uint8. Raises DataError where EVERLEARN_DATA has no
    cifar100_12k. Reference: Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    return _labelled("cifar100_12k", labels)


def omniglot_small(labels: str = "fine") -> Data:
    """Omniglot in small: 242 characters of 8 alphabets, each drawn by 20 people, 1x28x28; drawers 15-19 are the test part.

    labels: "fine" (242 characters) or "coarse" (8 alphabets). x is uint8. Raises DataError where EVERLEARN_DATA has no
    omniglot_small. Reference: Lake, Salakhutdinov & Tenenbaum (2015), Human-level concept learning through probabilistic program
    induction, Science 350.
    """
    return _labelled("omniglot_small", labels)


def mnist10k(seed: int = 0) -> Data:
    """Handwritten digits: the 10,000 test images of MNIST, 1x28x28, 8,000 to learn from and 2,000 as test part.

    seed: of the permutation whose first 8,000 rows are learned from. x is uint8. Raises DataError where EVERLEARN_DATA has no
    mnist10k. Reference: LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition.
    """
    return read(_found("mnist10k"), "mnist10k" if seed == 0 else f"mnist10k(seed={seed})", seed=seed)


def bandit_classification(name: str) -> Data:
    """One of 21 tables of the UCI repository, such as 'letter', 'pendigits' or 'mushroom'; columns have mean 0 and deviation 1.

    Means and deviations are those of all rows. Raises DataError where EVERLEARN_DATA has no such set.
    """
    return read(_found(f"bandit_classification/{name}"), f"bandit_classification({name!r})")


def libsvm_binary(name: str) -> Data:
    """One of nine two-class sets of the LIBSVM collection, such as 'a9a', 'w8a' or 'phishing', as dense rows, unscaled.

    Raises DataError where EVERLEARN_DATA has no such set.
    """
    return read(_found(f"libsvm_binary/{name}"), f"libsvm_binary({name!r})")


def superclasses(data: Data, name: str) -> Data:
    """The same rows, labelled with the superclass of each class.

    >>> x, y = torch.zeros(3, 1), torch.tensor([0, 2, 1])
    >>> pets = Data("pets", x, y, ("cat", "dog", "trout"), coarse=(0, 0, 1), coarse_classes=("mammal", "fish"))
    >>> superclasses(pets, "kinds").y.tolist()
    [0, 1, 0]
    """
    if not data.coarse:
        raise DataError(f"{data.name} has no superclasses.")
    above = torch.tensor(data.coarse)
    test_y = None if data.test_y is None else above[data.test_y]
    return replace(
        data, name=name, y=above[data.y], test_y=test_y, classes=data.coarse_classes, coarse=(), coarse_classes=()
    )


def _labelled(name: str, labels: str) -> Data:
    if labels not in ("fine", "coarse"):
        raise ArgumentError(f"{name}: labels must be 'fine' or 'coarse', got {labels!r}.")
    data = read(_found(name), name)
    return data if labels == "fine" else superclasses(data, f"{name}(labels='coarse')")


def _found(name: str):
    found = find(name)
    if found is None:
        raise DataError(
            f"{name}: not found in {where()}. Set EVERLEARN_DATA to the folder that holds the folder of this name."
        )
    return found
