"""The classifier: one hidden layer, trained epoch by epoch, kept as plain arrays.

A checkpoint is an .npz file and never a pickle: to load one runs no code.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from lading._demo.digits import Images

CLASSES = np.arange(10)

_HIDDEN = 32


class Training:
    """A network that learns. Each call of `epoch` shows it every image once."""

    def __init__(self, *, learning_rate: float, batch_size: int, seed: int) -> None:
        self._network = MLPClassifier(
            hidden_layer_sizes=(_HIDDEN,),
            learning_rate_init=learning_rate,
            batch_size=batch_size,
            random_state=seed,
        )

    def epoch(self, images: Images) -> float:
        """Learn from every image once; return the loss."""
        with warnings.catch_warnings():
            # It is told to go on for one epoch only, and complains that one is not enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._network.partial_fit(images.pixels, images.labels, classes=CLASSES)
        return float(self._network.loss_)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        (hidden, output), (hidden_bias, output_bias) = self._network.coefs_, self._network.intercepts_
        np.savez(path, hidden=hidden, hidden_bias=hidden_bias, output=output, output_bias=output_bias)


class Network:
    """A network that was trained, as a deployment loads it."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self._hidden, self._hidden_bias = arrays["hidden"], arrays["hidden_bias"]
            self._output, self._output_bias = arrays["output"], arrays["output_bias"]

    def predict(self, pixels: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return what each image shows."""
        hidden = np.maximum(pixels @ self._hidden + self._hidden_bias, 0)
        scores = hidden @ self._output + self._output_bias
        predicted: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
        return predicted

    def accuracy(self, images: Images) -> float:
        """Return the part of the images that it reads right."""
        return float(np.mean(self.predict(images.pixels) == images.labels))
