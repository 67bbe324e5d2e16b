"""Scores of one's own, of scikit-learn and of each example. Run: `python examples/own_metric.py`."""

import jax.numpy as jnp
import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

import metaleader as ml

sure = ml.Score("confidently right", lambda z, y: (jnp.abs(z[:, 1] - z[:, 0]) > 2) & (z.argmax(1) == y), True)
scores = (
    ml.from_sklearn(balanced_accuracy_score, predictions="labels"),  # the first decides on proficiency
    ml.from_sklearn(f1_score, "macro F1", predictions="labels", average="macro"),
    ml.from_sklearn(roc_auc_score, "AUC", predictions="scores"),
    sure,
)


def patient(i: int) -> ml.Task:
    """One in four examples is positive, at a border that each patient has for itself."""
    random = np.random.default_rng(i)
    x = random.normal(size=(90, 3)).astype(np.float32)
    score = x @ random.normal(size=3)
    y = (score > np.quantile(score, 0.75)).astype(np.int32)
    return ml.Task.from_arrays(x[:40], y[:40], x[40:], y[40:], name=f"patient {i}")


problem = ml.Problem(ml.MLP(inputs=3, outputs=2), ml.CrossEntropy(label_smoothing=0.0), scores)
if __name__ == "__main__":
    learner = ml.FTML(ml.GradientDescent(step_size=0.5))
    results = ml.run(problem, [patient(i) for i in range(12)], learner, protocol=ml.OnlineProtocol(chunk=20))
    print(results.table())
