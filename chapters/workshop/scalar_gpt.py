"""A whole GPT in plain Python: every number is an object of its own, and nothing is imported but `math` and `random`.

    python scalar_gpt.py        trains it on a few words and lets it invent others

The weights have the names that they have in minillm.models.gpt.GPT, so that both can start from the same ones: chapter
07 trains them side by side. Read from top to bottom: numbers, parts, model, training.
"""

import math
import random

# --- numbers that remember how they were computed (chapter 02) --------------------------------------------------------


class Value:
    """A number, the values it was computed from, and how fast it changes with each of them."""

    __slots__ = ("data", "grad", "parents", "slopes")

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.grad = data, 0.0
        self.parents, self.slopes = parents, slopes

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __sub__(self, other):
        return Value(self.data - other.data, (self, other), (1.0, -1.0))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def plus(self, number):  # a plain number has no gradient
        return Value(self.data + number, (self,), (1.0,))

    def times(self, number):
        return Value(self.data * number, (self,), (number,))

    def power(self, exponent):
        return Value(self.data**exponent, (self,), (exponent * self.data ** (exponent - 1),))

    def exp(self):
        y = math.exp(self.data)
        return Value(y, (self,), (y,))

    def log(self):
        return Value(math.log(self.data), (self,), (1 / self.data,))

    def tanh(self):
        y = math.tanh(self.data)
        return Value(y, (self,), (1 - y * y,))

    def backward(self):
        """dL/d(each value) for L = this one: each value once, after all that was computed from it."""
        order, met, stack = [], set(), [(self, False)]
        while stack:
            value, parents_placed = stack.pop()
            if parents_placed:
                order.append(value)
            elif value not in met:
                met.add(value)
                stack.append((value, True))
                stack += [(parent, False) for parent in value.parents]
        self.grad = 1.0
        for value in reversed(order):
            for parent, slope in zip(value.parents, value.slopes):
                parent.grad += value.grad * slope


def dot(xs, ys):
    """x₁y₁ + x₂y₂ + …: as one step, whose slope along each factor is the other factor."""
    data = sum(x.data * y.data for x, y in zip(xs, ys))
    return Value(data, (*xs, *ys), (*[y.data for y in ys], *[x.data for x in xs]))


def total(xs):
    return Value(sum(x.data for x in xs), tuple(xs), (1.0,) * len(xs))


# --- the parts of a GPT: a vector is a list of values, a matrix a list of rows ----------------------------------------


def linear(x, weight, bias):
    return [dot(row, x) + b for row, b in zip(weight, bias)]


def layer_norm(x, weight, bias):
    mean = total(x).times(1 / len(x))
    centred = [v - mean for v in x]
    r = dot(centred, centred).times(1 / len(x)).plus(1e-5).power(-0.5)
    return [c * r * w + b for c, w, b in zip(centred, weight, bias)]


def gelu(x):
    u = (x + (x * x * x).times(0.044715)).times(math.sqrt(2 / math.pi))
    return (x * u.tanh().plus(1.0)).times(0.5)


def softmax(scores):
    largest = max(s.data for s in scores)
    exps = [s.plus(-largest).exp() for s in scores]
    inverse = total(exps).power(-1.0)
    return [e * inverse for e in exps]


def attention(x, weights, name, n_heads):
    """The stream's normed vectors, one for each position, to what attention adds to each of them."""
    D = len(x[0])
    d = D // n_heads
    qkv = [linear(v, weights[name + "qkv.weight"], weights[name + "qkv.bias"]) for v in x]
    mixed = [[] for _ in x]  # the heads' results, side by side
    for start in range(0, D, d):  # a head has its own d features of q, k and v
        q, k, v = ([row[part + start : part + start + d] for row in qkv] for part in (0, D, 2 * D))
        for t in range(len(x)):  # sees itself and what comes before
            p = softmax([dot(q[t], k[s]).times(1 / math.sqrt(d)) for s in range(t + 1)])
            mixed[t] += [dot(p, [v[s][i] for s in range(t + 1)]) for i in range(d)]
    return [linear(m, weights[name + "proj.weight"], weights[name + "proj.bias"]) for m in mixed]


def mlp(x, weights, name):
    hidden = [gelu(h) for h in linear(x, weights[name + "fc.weight"], weights[name + "fc.bias"])]
    return linear(hidden, weights[name + "proj.weight"], weights[name + "proj.bias"])


def gpt(ids, weights, n_layers, n_heads):
    """Token ids of one text -> for each position, the logits of what comes next."""

    def norm(stream, name):
        return [layer_norm(v, weights[name + ".weight"], weights[name + ".bias"]) for v in stream]

    def add(stream, what):
        return [[a + b for a, b in zip(v, w)] for v, w in zip(stream, what)]

    table = weights["token_embedding.weight"]
    stream = add([table[i] for i in ids], weights["position_embedding.weight"])
    for layer in range(n_layers):
        block = f"blocks.{layer}."
        stream = add(stream, attention(norm(stream, block + "norm_1"), weights, block + "attn.", n_heads))
        stream = add(stream, [mlp(v, weights, block + "mlp.") for v in norm(stream, block + "norm_2")])
    return [[dot(row, h) for row in table] for h in norm(stream, "norm")]


# --- training ---------------------------------------------------------------------------------------------------------


def cross_entropy(logits, targets):
    """The mean over all positions of −ln p(what came next)."""
    losses = [softmax(row)[target].log().times(-1.0) for row, target in zip(logits, targets)]
    return total(losses).times(1 / len(losses))


def adamw(values, moments, step, lr, weight_decay=0.01, beta1=0.9, beta2=0.999, eps=1e-8):
    """One step of AdamW (chapter 08). `moments` holds the running means [m, v] of each value; `step` counts from 1."""
    for value, moment in zip(values, moments):
        moment[0] = beta1 * moment[0] + (1 - beta1) * value.grad
        moment[1] = beta2 * moment[1] + (1 - beta2) * value.grad**2
        m, v = moment[0] / (1 - beta1**step), moment[1] / (1 - beta2**step)
        value.data -= lr * weight_decay * value.data + lr * m / (math.sqrt(v) + eps)
        value.grad = 0.0


def as_values(numbers):
    """Nested lists of numbers as nested lists of values."""
    return [as_values(x) for x in numbers] if isinstance(numbers, list) else Value(numbers)


def all_values(nested):
    """The values in nested lists, in order."""
    return [v for part in nested for v in all_values(part)] if isinstance(nested, list) else [nested]


def new_weights(vocab_size, context, n_layers, D, rng, std=0.1):
    """Random matrices, biases 0, gains 1."""
    shapes = {"token_embedding.weight": (vocab_size, D), "position_embedding.weight": (context, D)}
    for layer in range(n_layers):
        sizes = {"attn.qkv": (3 * D, D), "attn.proj": (D, D), "mlp.fc": (4 * D, D), "mlp.proj": (D, 4 * D)}
        shapes |= {f"blocks.{layer}.{name}.weight": shape for name, shape in sizes.items()}
    weights = {name: [[rng.gauss(0, std) for _ in range(n)] for _ in range(m)] for name, (m, n) in shapes.items()}
    for name in list(weights)[2:]:  # a bias for each row of a linear layer's matrix
        weights[name.replace("weight", "bias")] = [0.0] * len(weights[name])
    for norm in ["norm", *(f"blocks.{layer}.norm_{i}" for layer in range(n_layers) for i in (1, 2))]:
        weights[norm + ".weight"], weights[norm + ".bias"] = [1.0] * D, [0.0] * D
    return {name: as_values(numbers) for name, numbers in weights.items()}


def main(steps=300, context=8):
    words = "anna hanna johanna susanna rosanna maria mariana ariana adriana diana liana juliana lilian vivian marian"
    letters = sorted(set(words))  # the space ends a word
    text = [letters.index(c) for c in words + " "]
    rng = random.Random(0)
    weights = new_weights(len(letters), context, 1, 16, rng)
    values = all_values(list(weights.values()))
    moments = [[0.0, 0.0] for _ in values]
    for step in range(1, steps + 1):
        start = rng.randrange(len(text) - context)
        window = text[start : start + context + 1]
        loss = cross_entropy(gpt(window[:-1], weights, n_layers=1, n_heads=2), window[1:])
        loss.backward()
        adamw(values, moments, step, lr=1e-2)
        if step % 50 == 0:
            print(f"step {step}: loss {loss.data:.3f}")
    ids = [letters.index(" ")]
    for _ in range(80):
        p = [v.data for v in softmax(gpt(ids[-context:], weights, n_layers=1, n_heads=2)[-1])]
        ids += rng.choices(range(len(letters)), p)
    print("".join(letters[i] for i in ids))


if __name__ == "__main__":
    main()
