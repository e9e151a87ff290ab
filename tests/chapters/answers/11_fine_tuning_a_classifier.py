# %% exercise 1, wrong: the accuracy
# says: That is micro F1
def macro_f1(truth, guess, n_classes):
    return np.mean(np.array(truth) == np.array(guess))


# %% exercise 1, wrong: F1 of macro precision and macro recall
# says: F1 of the macro precision and recall
def macro_f1(truth, guess, n_classes):
    truth, guess = np.array(truth), np.array(guess)
    hits = np.array([np.sum((truth == k) & (guess == k)) for k in range(n_classes)])
    said = np.array([np.sum(guess == k) for k in range(n_classes)])
    were = np.array([np.sum(truth == k) for k in range(n_classes)])
    precision, recall = (hits / np.maximum(said, 1)).mean(), (hits / np.maximum(were, 1)).mean()
    return 2 * precision * recall / (precision + recall)


# %% exercise 1, wrong: each class by how many are of it
# says: Each class counts alike
def macro_f1(truth, guess, n_classes):
    return metrics.precision_recall_f1(truth, guess, "weighted", range(n_classes)).f1


# %% exercise 1, wrong: a class without a hit is left out
# says: The class that is never right counts
def macro_f1(truth, guess, n_classes):
    truth, guess = np.array(truth), np.array(guess)
    scores = []
    for k in range(n_classes):
        tp = np.sum((truth == k) & (guess == k))
        if tp:
            scores.append(2 * tp / (np.sum(guess == k) + np.sum(truth == k)))
    return np.mean(scores)


# %% exercise 1, wrong: 0 divided by 0
# says: 0 divided by 0 counts as 0
def macro_f1(truth, guess, n_classes):
    truth, guess = np.array(truth), np.array(guess)
    scores = []
    with np.errstate(invalid="ignore"):
        for k in range(n_classes):
            tp = np.sum((truth == k) & (guess == k))
            scores.append(np.float64(2 * tp) / (np.sum(guess == k) + np.sum(truth == k)))
    return np.mean(scores)


# %% exercise 1, right: from the confusion matrix
def macro_f1(truth, guess, n_classes):
    M = metrics.confusion_matrix(truth, guess, range(n_classes))
    return (2 * M.diagonal() / np.maximum(M.sum(axis=0) + M.sum(axis=1), 1)).mean()


# %% exercise 1, right: plain Python, as a harmonic mean
def macro_f1(truth, guess, n_classes):
    total = 0.0
    for k in range(n_classes):
        tp = sum(t == g == k for t, g in zip(truth, guess))
        if tp:
            precision, recall = tp / list(guess).count(k), tp / list(truth).count(k)
            total += 2 / (1 / precision + 1 / recall)
    return total / n_classes


# %% exercise 2, wrong: alpha without r
# says: The factor is alpha / r
def merged_matrix(W, A, B, alpha):
    return W + alpha * B @ A


# %% exercise 2, wrong: the rank is read off the wrong axis
# says: r is the adapter's rank
def merged_matrix(W, A, B, alpha):
    return W + alpha / A.shape[1] * B @ A


# %% exercise 2, wrong: the product the other way round
# says: which product is (m, n)
def merged_matrix(W, A, B, alpha):
    return alpha / len(A) * A @ B


# %% exercise 2, wrong: the change alone
# says: That is the change alone
def merged_matrix(W, A, B, alpha):
    return alpha / len(A) * B @ A


# %% exercise 2, wrong: the other scale
# says: rank-stabilized
def merged_matrix(W, A, B, alpha):
    return W + alpha / np.sqrt(len(A)) * B @ A


# %% exercise 2, right: a sum of r products
def merged_matrix(W, A, B, alpha):
    merged = W.copy()
    for k in range(len(A)):
        merged += alpha / len(A) * np.outer(B[:, k], A[k])
    return merged


# %% exercise 2, right: what it does to each unit vector
def merged_matrix(W, A, B, alpha):
    columns = [W @ e + alpha / B.shape[1] * B @ (A @ e) for e in np.eye(W.shape[1])]
    return np.stack(columns, axis=1).tolist()


# %% exercise 3, wrong: each loss is compared with the one before
# says: are three in a row that do not beat
def early_stop(losses, patience):
    best, waited = 0, 0
    for i in range(1, len(losses)):
        waited = 0 if losses[i] < losses[i - 1] else waited + 1
        best = i if losses[i] < losses[best] else best
        if waited == patience:
            return i, best
    return len(losses) - 1, best


# %% exercise 3, wrong: one evaluation too late
# says: Count: after 0.7
def early_stop(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        if i - best > patience:
            return i, best
    return len(losses) - 1, best


# %% exercise 3, wrong: the weights are those of the end
# says: those of the lowest loss
def early_stop(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        if i - best == patience:
            return i, i
    return len(losses) - 1, len(losses) - 1


# %% exercise 3, wrong: the count goes on over new lowest losses
# says: begins the count anew
def early_stop(losses, patience):
    best, waited = 0, 0
    for i, loss in enumerate(losses):
        if i and loss < losses[best]:
            best = i
        elif i:
            waited += 1
        if waited == patience:
            return i, best
    return len(losses) - 1, best


# %% exercise 3, wrong: an equal loss counts as better
# says: An equal loss
def early_stop(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss <= losses[best]:
            best = i
        if i - best == patience:
            return i, best
    return len(losses) - 1, best


# %% exercise 3, right: from the lowest losses so far, as an array
def early_stop(losses, patience):
    best_so_far = [int(np.argmin(losses[: i + 1])) for i in range(len(losses))]
    ends = [i for i, best in enumerate(best_so_far) if i - best >= patience]
    end = ends[0] if ends else len(losses) - 1
    return np.array([end, best_so_far[end]])


# %% exercise 3, right: an iterator and a counter, as a list
def early_stop(losses, patience):
    lowest, kept, waited, i = float("inf"), None, 0, -1
    rest = iter(losses)
    while waited < patience and (loss := next(rest, None)) is not None:
        i += 1
        lowest, kept, waited = (loss, i, 0) if loss < lowest else (lowest, kept, waited + 1)
    return [i, kept]


# %% exercise 4, wrong: the right class gets none of what is spread
# says: spread over all C classes
def smoothed(x, y, epsilon):
    B, C = x.shape
    q = np.full((B, C), epsilon / (C - 1))
    q[np.arange(B), y] = 1 - epsilon
    p = softmax(x)
    return -(q * np.log(p)).sum(axis=1).mean(), (p - q) / B


# %% exercise 4, wrong: the gradient of the sum
# says: so is its gradient
def smoothed(x, y, epsilon):
    B, C = x.shape
    q = (1 - epsilon) * np.eye(C)[y] + epsilon / C
    p = softmax(x)
    return -(q * np.log(p)).sum(axis=1).mean(), p - q


# %% exercise 4, wrong: a smoothed loss, a hard gradient
# says: p − q, not p − onehot
def smoothed(x, y, epsilon):
    B, C = x.shape
    q = (1 - epsilon) * np.eye(C)[y] + epsilon / C
    p = softmax(x)
    return -(q * np.log(p)).sum(axis=1).mean(), (p - np.eye(C)[y]) / B


# %% exercise 4, wrong: a mean over texts and classes
# says: not the mean over texts
def smoothed(x, y, epsilon):
    B, C = x.shape
    q = (1 - epsilon) * np.eye(C)[y] + epsilon / C
    p = softmax(x)
    return -(q * np.log(p)).mean(), (p - q) / B


# %% exercise 4, right: a mixture of two cross-entropies
def smoothed(x, y, epsilon):
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    hard = -log_p[np.arange(len(y)), y].mean()
    gradient = np.exp(log_p) - epsilon / x.shape[1]
    gradient[np.arange(len(y)), y] -= 1 - epsilon
    return (1 - epsilon) * hard - epsilon * log_p.mean(), gradient / len(y)


# %% exercise 4, right: by the library
def smoothed(x, y, epsilon):
    parameter = Parameter(x)
    loss = ops.cross_entropy(parameter, y, label_smoothing=epsilon)
    loss.backward()
    return loss.item(), parameter.grad


# %% exercise 5, wrong: the squared error
# says: That is the squared error
def poisson_loss(x, t):
    return np.mean((np.exp(x) - t) ** 2), 2 * (np.exp(x) - t) * np.exp(x) / len(x)


# %% exercise 5, wrong: the likelihood, not its negative
# says: The sign
def poisson_loss(x, t):
    return np.mean(t * x - np.exp(x)), (t - np.exp(x)) / len(x)


# %% exercise 5, wrong: the gradient of the sum
# says: divide its gradient by B
def poisson_loss(x, t):
    return np.mean(np.exp(x) - t * x), np.exp(x) - t


# %% exercise 5, wrong: with ln t!
# says: leave it out
def poisson_loss(x, t):
    constant = np.array([np.log(np.arange(1, n + 1)).sum() for n in t])
    return np.mean(np.exp(x) - t * x + constant), (np.exp(x) - t) / len(x)


# %% exercise 5, wrong: x is taken for the mean
# says: The mean is e^x
def poisson_loss(x, t):
    return np.mean(x - t * np.log(np.abs(x))), (1 - t / x) / len(x)


# %% exercise 5, right: through the mean, by the chain rule
def poisson_loss(x, t):
    mean = np.exp(x)
    by_mean = 1 - t / mean
    return (mean - t * np.log(mean)).mean(), by_mean * mean / x.size


# %% exercise 5, right: by autograd
def poisson_loss(x, t):
    parameter = Parameter(x)
    loss = (parameter.exp() - parameter * t.astype(x.dtype)).mean()
    loss.backward()
    return loss.item(), parameter.grad
