"""The SVM's pairwise decisions as matrix products, in ONNX nodes.

Pairs are (0, 1), (0, 2), …, (1, 2), …; a positive decision is a vote for the first scene of the pair.
"""

from itertools import combinations

import numpy as np
from sklearn.svm import SVC

from tagasc.export.graph import Graph


def pair_matrices(scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which scene is first and which is second in each pair, both float64 (pairs, scenes)."""
    first, second = zip(*combinations(range(scenes), 2), strict=True)
    return np.eye(scenes)[list(first)], np.eye(scenes)[list(second)]


def decisions(graph: Graph, svm: SVC, code: str) -> str:
    """Add the decision of every pair of scenes, float64 (batch, pairs), from codes in float64."""
    coefficients, intercepts = pair_coefficients(svm)
    kernel = graph.add("MatMul", _kernel(graph, svm, code), graph.constant(coefficients, np.float64))
    return graph.add("Add", kernel, graph.constant(intercepts, np.float64))


def pair_coefficients(svm: SVC) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (support vectors, pairs) and intercepts (pairs,) of the pairwise decisions.

    scikit-learn stores the coefficients of a scene's support vectors against the other scenes in rows, without a row
    for the scene itself. For two scenes it turns the sign.
    """
    scenes = len(svm.classes_)
    ends = np.concatenate([[0], np.cumsum(svm.n_support_)])
    columns = []
    for first, second in combinations(range(scenes), 2):
        column = np.zeros(ends[-1])
        column[ends[first] : ends[first + 1]] = svm.dual_coef_[second - 1, ends[first] : ends[first + 1]]
        column[ends[second] : ends[second + 1]] = svm.dual_coef_[first, ends[second] : ends[second + 1]]
        columns.append(column)
    sign = -1.0 if scenes == 2 else 1.0
    return sign * np.stack(columns, axis=1), sign * svm.intercept_


def _kernel(graph: Graph, svm: SVC, code: str) -> str:
    vectors, gamma = svm.support_vectors_, float(svm._gamma)
    products = graph.add("MatMul", code, graph.constant(vectors.T, np.float64))
    if svm.kernel == "linear":
        return products
    if svm.kernel == "rbf":
        length = graph.add("ReduceSumSquare", code, graph.integers(1), keepdims=1)
        lengths = graph.add("Add", length, graph.constant((vectors**2).sum(axis=1), np.float64))
        twice = graph.add("Mul", products, graph.constant(2.0, np.float64))
        distance = graph.add("Sub", lengths, twice)
        return graph.add("Exp", graph.add("Mul", distance, graph.constant(-gamma, np.float64)))
    scaled = graph.add("Mul", products, graph.constant(gamma, np.float64))
    scaled = graph.add("Add", scaled, graph.constant(float(svm.coef0), np.float64))
    if svm.kernel == "poly":
        return graph.add("Pow", scaled, graph.constant(float(svm.degree), np.float64))
    return graph.add("Tanh", scaled)
