"""What a representation is worth: tasks on frozen vectors and on networks.

Every evaluator is a small value that holds its settings. Its ``run(train, test, seeds)`` yields pairs of a ``Name``
and a value, of which ``scores.scores_of`` alone makes rows. ``train`` and ``test`` are ``folds.Samples``, in a search
the gallery and the queries; without ``test`` the training samples are cross-validated, no group in two folds. Each of
``seeds`` draws whatever is drawn; what draws nothing comes once, under the first. A run raises ParameterError where
the samples do not suit it: fewer than two classes, folds that are impossible, vectors that are not finite.

It may import the rest of ``vis2img.train``, and must not know the command line.
"""
