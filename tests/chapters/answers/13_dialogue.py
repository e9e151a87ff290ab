# %% exercise 1, wrong: the end of the turn is left out
# says: The end of an assistant's turn trains
def conversation_mask(turns, begin, end, roles):
    ids, mask = [], []
    for role, said in turns:
        ids += [begin, roles[role], *said, end]
        mask += [False, False, *[role == "assistant"] * len(said), False]
    return ids, mask


# %% exercise 1, wrong: the frame trains, too
# says: The frame in front of an answer
def conversation_mask(turns, begin, end, roles):
    ids, mask = [], []
    for role, said in turns:
        turn = [begin, roles[role], *said, end]
        ids += turn
        mask += [role == "assistant"] * len(turn)
    return ids, mask


# %% exercise 1, wrong: only the last turn
# says: All turns of the assistant train
def conversation_mask(turns, begin, end, roles):
    ids, mask = [], []
    for number, (role, said) in enumerate(turns):
        trains = role == "assistant" and number == len(turns) - 1
        ids += [begin, roles[role], *said, end]
        mask += [False, False, *[trains] * len(said), trains]
    ends = [i for i, one in enumerate(ids) if one == end]
    for i in ends[1::2]:
        mask[i] = True
    return ids, mask


# %% exercise 1, wrong: everything trains
# says: The user's words do not train
def conversation_mask(turns, begin, end, roles):
    ids = [i for role, said in turns for i in (begin, roles[role], *said, end)]
    return ids, [True] * len(ids)


# %% exercise 1, wrong: every end trains
# says: The end of a user's turn does not train
def conversation_mask(turns, begin, end, roles):
    ids, mask = [], []
    for role, said in turns:
        ids += [begin, roles[role], *said, end]
        mask += [False, False, *[role == "assistant"] * len(said), True]
    return ids, mask


# %% exercise 1, right: arrays
def conversation_mask(turns, begin, end, roles):
    rows = [np.array([begin, roles[role], *said, end]) for role, said in turns]
    marks = [np.arange(len(row)) >= (2 if role == "assistant" else 99) for row, (role, _) in zip(rows, turns)]
    return (np.concatenate(rows), np.concatenate(marks)) if rows else (np.array([]), np.array([]))


# %% exercise 1, right: pairs, taken apart at the end
def conversation_mask(turns, begin, end, roles):
    both = []
    for role, said in turns:
        both += [(begin, 0), (roles[role], 0)] + [(i, int(role == "assistant")) for i in [*said, end]]
    return [i for i, _ in both], [m for _, m in both]


# %% exercise 2, wrong: no reference
# says: Where is the reference?
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    z = beta * (chosen - rejected)
    return np.mean(np.log(1 + np.exp(-z))), -beta / (1 + np.exp(z)) / len(z)


# %% exercise 2, wrong: the sign of h
# says: The sign of h
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    z = beta * ((rejected - ref_rejected) - (chosen - ref_chosen))
    return np.logaddexp(0, -z).mean(), beta * np.exp(-np.logaddexp(0, z)) / len(z)


# %% exercise 2, wrong: a gradient of each pair
# says: so is its gradient
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return np.logaddexp(0, -z).mean(), -beta * np.exp(-np.logaddexp(0, z))


# %% exercise 2, wrong: without the factor beta
# says: a factor β
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return np.logaddexp(0, -z).mean(), -np.exp(-np.logaddexp(0, z)) / len(z)


# %% exercise 2, wrong: overflows far from 0
# says: exp overflows
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    with np.errstate(over="ignore"):
        return np.log(1 + np.exp(-z)).mean(), -beta / (1 + np.exp(z)) / len(z)


# %% exercise 2, right: by the library's autograd
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    x = Parameter(np.array(chosen))
    loss = dpo(x, Tensor(rejected), Tensor(ref_chosen), Tensor(ref_rejected), beta).sum() * (1 / len(chosen))
    loss.backward()
    return loss.item(), x.grad


# %% exercise 2, right: both signs of h apart
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    z = beta * (chosen - rejected - ref_chosen + ref_rejected)
    small = np.exp(-np.abs(z))
    loss = np.log1p(small) + np.maximum(-z, 0)
    lost = np.where(z > 0, small, 1.0) / (1 + small)  # σ(−z)
    return sum(loss) / len(loss), -beta * lost / len(loss)


# %% exercise 3, wrong: not divided
# says: Divide by the standard deviation
def group_advantages(rewards):
    return rewards - rewards.mean(axis=1, keepdims=True) if np.ptp(rewards) else rewards * 0


# %% exercise 3, wrong: 0 divided by 0
# says: 0 divided by 0
def group_advantages(rewards):
    with np.errstate(all="ignore"):
        centred = rewards - rewards.mean(axis=1, keepdims=True)
        centred[np.ptp(rewards, axis=1) == 0] = 0
        return centred / np.where(np.ptp(rewards, axis=1, keepdims=True) > 0, rewards.std(axis=1, keepdims=True), 0)


# %% exercise 3, wrong: over all groups
# says: its own group
def group_advantages(rewards):
    result = (rewards - rewards.mean()) / rewards.std()
    result[np.ptp(rewards, axis=1) == 0] = 0
    return result


# %% exercise 3, wrong: divided by G − 1
# says: not by G − 1
def group_advantages(rewards):
    result = np.zeros(rewards.shape)
    for i, row in enumerate(rewards):
        if np.ptp(row):
            result[i] = (row - row.mean()) / row.std(ddof=1)
    return result


# %% exercise 3, wrong: a little is added, and the mean is not exact
# says: exactly 0
def group_advantages(rewards):
    return (rewards - rewards.mean(axis=1, keepdims=True) + 1e-17) / (rewards.std(axis=1, keepdims=True) + 1e-12)


# %% exercise 3, right: row by row, as lists
def group_advantages(rewards):
    result = []
    for row in rewards.tolist():
        mean = sum(row) / len(row)
        deviation = (sum((r - mean) ** 2 for r in row) / len(row)) ** 0.5
        result.append([(r - mean) / deviation if max(row) > min(row) else 0 for r in row])
    return result


# %% exercise 3, right: by the library, its small addend taken out
def group_advantages(rewards):
    std = rewards.std(axis=1, keepdims=True)
    return advantages(rewards, divide_by_std=False) / np.where(np.ptp(rewards, axis=1, keepdims=True) > 0, std, 1)


# %% exercise 4, wrong: the clip on both sides of every token
# says: pulled back
def pull(ratio, advantage, epsilon):
    outside = np.abs(ratio - 1) > epsilon
    return np.where(outside, 0.0, -ratio * advantage)


# %% exercise 4, wrong: the objective's sign
# says: The sign
def pull(ratio, advantage, epsilon):
    done = np.where(advantage > 0, ratio > 1 + epsilon, ratio < 1 - epsilon)
    return np.where(done, 0.0, ratio * advantage)


# %% exercise 4, wrong: without the ratio
# says: not −A
def pull(ratio, advantage, epsilon):
    done = np.where(advantage > 0, ratio > 1 + epsilon, ratio < 1 - epsilon)
    return np.where(done, 0.0, -advantage)


# %% exercise 4, wrong: max in the place of min
# says: the clip ends the pull
def pull(ratio, advantage, epsilon):
    done = np.where(advantage > 0, ratio < 1 - epsilon, ratio > 1 + epsilon)
    return np.where(done, 0.0, -ratio * advantage)


# %% exercise 4, right: by comparing the two values
def pull(ratio, advantage, epsilon):
    free, clipped = ratio * advantage, np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage
    return np.where(free <= clipped, -free, 0.0)


# %% exercise 4, right: by finite differences
def pull(ratio, advantage, epsilon):
    def loss(log_ratio):
        rho = np.exp(log_ratio)
        return -np.minimum(rho * advantage, np.clip(rho, 1 - epsilon, 1 + epsilon) * advantage)

    x = np.log(ratio)
    return (loss(x + 1e-5) - loss(x - 1e-5)) / 2e-5
