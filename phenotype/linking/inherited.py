"""Baseline: logistic regression on labels that regions inherit from their image."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenotype.linking.evidence import image_score
from phenotype.linking.mapper import Bag, CannotLearn, finite, silent, stack

_MOST = 50_000  # regions learned from; more change nothing but the time


class InheritedLogistic:
    """Logistic regression for each term on its regions, each with the probability of its image for label.

    strength   inverse of the regularisation
    top        regions whose mean is the score of an image
    seed       of the choice of regions where there are more than 50,000
    """

    name: ClassVar[str] = "inherited-logistic"

    def __init__(self, *, strength: float = 1.0, top: int = 5, seed: int = 0) -> None:
        self.strength, self.top, self.seed = strength, top, seed
        self.weights_: NDArray[np.float64] | None = None  # (inputs + 1, n_terms), of standardised inputs; the bias last
        self.center_: NDArray[np.float64] = np.zeros(0)
        self.scale_: NDArray[np.float64] = np.ones(0)
        self.d_ = 0

    def fit(self, bags: Sequence[Bag]) -> Self:
        """One regression a term."""
        from sklearn.linear_model import LogisticRegression

        told = stack(bags)
        quiet = silent(told.probabilities)
        self.d_ = told.regions.shape[1]
        image = np.repeat(np.arange(len(told.sizes)), told.sizes)
        rows = np.arange(len(image))
        if len(rows) > _MOST:
            rows = np.sort(np.random.default_rng(self.seed).choice(len(rows), _MOST, replace=False))
        inputs = told.regions[rows].astype(np.float64)
        self.center_, scale = inputs.mean(axis=0), inputs.std(axis=0)
        self.scale_ = np.where(scale > 1e-9, scale, 1.0)
        inputs = (inputs - self.center_) / self.scale_
        self.weights_ = np.zeros((inputs.shape[1] + 1, quiet.size))
        for term in np.flatnonzero(~quiet).tolist():
            probable = told.probabilities[image[rows], term]
            allowed = True if told.where is None else told.where[rows, term]
            label = (probable >= 0.5) & allowed
            sure = np.where(label == (probable >= 0.5), np.abs(2 * probable - 1), 1.0)
            if label.all() or not label.any():
                continue
            # a label of probability 0.8 is one of 1 and weight 0.6, beside what says nothing
            model = LogisticRegression(C=self.strength, solver="newton-cholesky")
            model.fit(inputs, label, sample_weight=np.maximum(sure, 1e-3))
            self.weights_[:, term] = [*model.coef_[0], model.intercept_[0]]
        return self

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Log-odds of the term for each region (n, n_terms)."""
        if self.weights_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        inputs = (finite(regions, self.d_) - self.center_) / self.scale_
        return np.asarray(inputs @ self.weights_[:-1] + self.weights_[-1])

    def image_score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Mean of the highest regions."""
        return image_score(self.score(regions), top=self.top)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and parameters."""
        if self.weights_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        own = np.array([self.d_, self.top], np.int64)
        return {"weights": self.weights_, "center": self.center_, "scale": self.scale_, "own": own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            d, top = (int(value) for value in arrays["own"])
            found = cls(top=top)
            found.d_, found.weights_ = d, np.asarray(arrays["weights"], np.float64)
            found.center_, found.scale_ = np.asarray(arrays["center"]), np.asarray(arrays["scale"])
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        return found
