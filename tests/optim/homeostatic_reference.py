"""The published rule in plain loops over lists of floats, for the trace that the house's own must follow. It shares no code with it."""

import math


def elu(z):
    return z if z > 0 else math.exp(z) - 1.0


def elu_slope(z):
    return 1.0 if z > 0 else math.exp(z)


def forward(layers, x):
    """(sums by layer, outputs by layer, x among them); layers: [(weights [out][in], biases [out]), ...]"""
    sums, outputs = [], [x]
    for number, (weights, biases) in enumerate(layers):
        z = [
            sum(w * h for w, h in zip(row, outputs[-1], strict=True)) + bias
            for row, bias in zip(weights, biases, strict=True)
        ]
        sums.append(z)
        outputs.append([elu(value) for value in z] if number < len(layers) - 1 else z)
    return sums, outputs


def softmax(z):
    top = max(z)
    powers = [math.exp(value - top) for value in z]
    return [power / sum(powers) for power in powers]


def predicted(layers, x):
    scores = forward(layers, x)[1][-1]
    return max(range(len(scores)), key=lambda label: scores[label])


def gradient(layers, x, y):
    """In the form of layers."""
    sums, outputs = forward(layers, x)
    error = softmax(sums[-1])
    error[y] -= 1.0
    found = []
    for number in range(len(layers) - 1, -1, -1):
        found.insert(0, ([[e * h for h in outputs[number]] for e in error], list(error)))
        if number:
            weights = layers[number][0]
            back = [sum(error[o] * weights[o][i] for o in range(len(error))) for i in range(len(outputs[number]))]
            error = [b * elu_slope(z) for b, z in zip(back, sums[number - 1], strict=True)]
    return found


def moved(layers, slopes, rate):
    return [
        (
            [
                [w - rate * g for w, g in zip(row, slope, strict=True)]
                for row, slope in zip(weights, weight_slopes, strict=True)
            ],
            [b - rate * g for b, g in zip(biases, bias_slopes, strict=True)],
        )
        for (weights, biases), (weight_slopes, bias_slopes) in zip(layers, slopes, strict=True)
    ]


def added(first, second):
    return moved(first, second, -1.0)


def accuracy(layers, items):
    return sum(predicted(layers, x) == y for x, y in items) / len(items)


def official(layers, xs, ys, lr, epoch, swaps, m=10, memory=20, floor=1e-8):
    """The decisions over rows in their order: [(row, predicted, true, a_leave, a_take, taken, lr after)].

    ys: labels as at first; swaps: {row: (a, b)}, labels exchanged from that row on, also those of the rows in memory.
    """
    step, mapping, decisions = lr / 10.0, list(range(1 + max(ys))), []
    for start in range(0, len(xs), epoch):
        total = None
        for i in range(epoch):
            row = start + i
            if row in swaps:
                a, b = swaps[row]
                mapping = [b if label == a else a if label == b else label for label in mapping]
            x, y = xs[row], mapping[ys[row]]
            slopes = gradient(layers, x, y)
            total = slopes if total is None else added(total, slopes)
            if i % m == 0 and i > memory:  # the sum holds this one row
                g = predicted(layers, x)
                seen = [(xs[start + j], mapping[ys[start + j]]) for j in range(i - memory, i)]
                leave = accuracy(moved(layers, total, lr / m), seen)
                other = max(lr + (step if g >= 5 else -step), floor)
                take = accuracy(moved(layers, total, other / m), seen)
                if take > leave:
                    lr = max(lr + (step if y >= 5 else -step), floor)
                decisions.append((row, g, y, leave, take, take > leave, lr))
            if i % m == m - 1:
                layers, total = moved(layers, total, lr / m), None
    return decisions
